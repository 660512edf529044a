package lovage

// Version is the version of this module, as workers tell it to monitors.
const Version = "0.1.0"
