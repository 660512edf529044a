// Package brokertest is the suite that every broker driver must pass.
//
// A driver's test calls [Run] with a [Harness] that opens fresh stores. Which
// cases run follows from what the connection can do: its broker.Features and
// the optional interfaces it implements. What it cannot do the harness says in
// Lacks, so that an ability can neither be forgotten nor get lost unseen: a
// difference between Lacks and the driver fails the suite. The cases that are
// left out are logged with the reason.
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Harness{
//			Open:   func(t *testing.T) broker.Conn { ... },
//			Reopen: func(t *testing.T, c broker.Conn) broker.Conn { ... },
//			Kill:   func(t *testing.T, c broker.Conn) { ... },
//			Lease:  2 * time.Second,
//		})
//	}
//
// Every case opens a store of its own, runs in parallel with the others and
// ends by checking that no message is left claimed.
package brokertest
