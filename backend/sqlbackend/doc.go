// Package sqlbackend keeps results in an SQLite file on a local disk that
// several processes use at once. Importing it makes the URL scheme sqlite
// available, with the forms and options of package sqlbroker's. Named with the
// same file as the broker, the two share it and a run's end is one transaction.
//
// Expired records are invisible at once and deleted little by little along with
// other writing, or all at once by Cleanup. The file does not shrink; the space
// is used again.
package sqlbackend
