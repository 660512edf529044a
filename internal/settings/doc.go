// Package settings reads configuration values: it converts what a file, the
// environment or a command line holds into Go values, finds the setting that a
// misspelt name meant, and masks secrets for display. It knows no setting by
// name; the table of settings is the root package's.
package settings
