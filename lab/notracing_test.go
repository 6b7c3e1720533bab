//go:build !race

package lab_test

// racing says that the race detector is on.
const racing = false
