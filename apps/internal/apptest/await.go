package apptest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen: far longer
// than it takes, so that a busy machine fails no test.
const Patience = 30 * time.Second

// Await returns once holds does, and ends the test when that takes longer
// than Patience; what says what is awaited.
func Await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %s for %s", Patience, what)
		}
	}
}

// Ended returns what a goroutine reports at its end, and ends the test when
// that takes longer than Patience.
func Ended(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(Patience):
		t.Fatalf("waited %s for the end", Patience)
		return nil
	}
}

// Log keeps what is written to it. A test may look while a program writes.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds to the log.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// Count returns how many lines contain part.
func (l *Log) Count(part string) int {
	return len(l.lines(part))
}

// Await waits for a line that contains part, and returns the first such.
func (l *Log) Await(t *testing.T, part string) string {
	t.Helper()
	var found []string
	Await(t, "a log line with "+part, func() bool {
		found = l.lines(part)
		return len(found) > 0
	})
	return found[0]
}

func (l *Log) lines(part string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, part) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
