//go:build race

package lab_test

// racing says that the race detector is on, under which a trial takes six times as long. The
// whole sample is tried without it (make verify).
const racing = true
