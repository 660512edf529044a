package redisbroker

// Cut cuts the connection off as kill -9 would: nothing is handed back.
func (c *Conn) Cut() error {
	c.cut.Store(true)
	return c.Close()
}
