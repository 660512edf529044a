//go:build !unix

package worker

import "os"

// inquiries: this system has no signal to ask with.
var inquiries []os.Signal

func isInquiry(os.Signal) bool { return false }
