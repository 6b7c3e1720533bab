//go:build race

package lab_test

// racing says that the race detector is on, under which a trial takes six times as long. All of
// what is sampled is tried without it, too (make verify).
const racing = true
