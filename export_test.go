package lovage

// Resolve shows the tests what the rest of the package reads.
func Resolve(c Config) (*resolved, error) { return c.resolve() }

// The tables of transport options.
var BrokerOptions, ResultOptions, URLParameters = brokerOptions, resultOptions, urlParameters

type TransportOption = transportOption
