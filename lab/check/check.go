// Package check says what is waited for, and waits for it: a condition with a
// name, a bound, and the last thing that was seen when the bound is over.
//
// It refuses to guess: it never sleeps before it has looked, and knows nothing
// of what a condition is about.
package check

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Check is a condition. Probe returns nil when it holds; its error says what
// was seen instead. An error wrapped by Never says that waiting does not help.
type Check struct {
	// Name completes the sentence "wait until …".
	Name  string
	Probe func(ctx context.Context) error
}

// Never marks an observation after which the condition can no longer come
// true; Until returns it at once.
func Never(err error) error { return &neverError{err: err} }

type neverError struct{ err error }

func (e *neverError) Error() string { return e.err.Error() }
func (e *neverError) Unwrap() error { return e.err }

// TimeoutError is the end of a wait whose bound was over.
type TimeoutError struct {
	Check string
	// Waited is how long, Tries how often the condition was looked at.
	Waited time.Duration
	Tries  int
	// LastSeen is what the last probe that ended by itself saw.
	LastSeen error
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("wait until %s: not after %s and %d tries; last seen: %v",
		e.Check, e.Waited.Round(100*time.Millisecond), e.Tries, e.LastSeen)
}

func (e *TimeoutError) Unwrap() error { return e.LastSeen }

// Bound is how long a wait may last and how often it looks.
type Bound struct {
	// Within is the longest wait.
	Within time.Duration
	// Every is the pause between the end of one look and the start of the next.
	Every time.Duration
	// Seen, where it is set, is told what each look that did not hold saw.
	Seen func(error)
}

// Until looks at once, and then again and again until the check holds, can no
// longer hold, or the bound is over. The error is a *TimeoutError, the probe's
// own one after Never, or the cause of the context's end together with what was
// last seen.
func Until(ctx context.Context, b Bound, c Check) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, b.Within)
	defer cancel()
	deadline, _ := bounded.Deadline()
	var last error
	for tries := 1; ; tries++ {
		err := c.Probe(bounded)
		if err == nil {
			return nil
		}
		if never := (*neverError)(nil); errors.As(err, &never) {
			// With what stands around it: that says which wait was ended.
			return fmt.Errorf("wait until %s: %w", c.Name, err)
		}
		// A probe that was cut off by the end of the wait saw nothing new. A
		// server that was told of the deadline may say so before ctx does.
		cut := bounded.Err() != nil || !time.Now().Before(deadline)
		if !cut || last == nil {
			last = err
		}
		if b.Seen != nil && !cut {
			b.Seen(err)
		}
		select {
		case <-bounded.Done():
		case <-time.After(b.Every):
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s: %w; last seen: %w", c.Name, context.Cause(ctx), last)
		}
		return &TimeoutError{Check: c.Name, Waited: time.Since(began), Tries: tries, LastSeen: last}
	}
}
