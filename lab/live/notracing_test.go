//go:build !race

package live

// racing says that the race detector is on.
const racing = false
