// Package interop runs one table of calls through a fleet of Python and Go: real
// Celery and Lovage, each as client and as worker, in every combination, with
// the results read by both. It is tests only. A driver brings the URLs; the
// table and the fleet are the same for all.
package interop
