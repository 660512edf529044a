// Package lovagetest helps to test programs that use Lovage: an app on a broker
// and a result store in memory, a real worker in the test's process, and
// assertions on what was sent.
//
//	func TestOrder(t *testing.T) {
//		x := lovagetest.New(t, lovage.Config{})
//		tasks := shop.Register(x.App)
//		x.Start(worker.Config{})
//		res, err := tasks.Order.Delay(t.Context(), shop.Item{ID: 7})
//		...
//		x.WantSent("shop.mail", 1)
//	}
//
// Everything may run inside a bubble of testing/synctest, where a countdown of
// an hour takes no time. Without a worker nothing runs and calls are only sent.
package lovagetest
