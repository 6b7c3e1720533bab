//go:build race

package live

// racing says that the race detector is on, with which the times of the page say nothing: make
// verify has them without it.
const racing = true
