package check_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
)

var errStopped = errors.New("stopped by hand")

func TestUntil(t *testing.T) {
	seen := func(n int) error { return fmt.Errorf("only %d of 3 are ready", n) }
	tests := []struct {
		name  string
		probe func(n int) error
		want  string
		took  time.Duration
	}{
		{name: "holds at once", probe: func(int) error { return nil }},
		{
			name: "holds at the third look",
			probe: func(n int) error {
				if n == 3 {
					return nil
				}
				return seen(n)
			},
			took: 2 * time.Second,
		},
		{
			name:  "does not hold",
			probe: seen,
			want:  "wait until all are ready: not after 5s and 6 tries; last seen: only 6 of 3 are ready",
			took:  5 * time.Second,
		},
		{
			name:  "can no longer hold",
			probe: func(n int) error { return check.Never(seen(n)) },
			want:  "wait until all are ready: only 1 of 3 are ready",
		},
		{
			name:  "can no longer hold, for a reason that is told with more",
			probe: func(n int) error { return fmt.Errorf("no answer; %w", check.Never(seen(n))) },
			want:  "wait until all are ready: no answer; only 1 of 3 are ready",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, tries := time.Now(), 0
				// The bound lies a moment after the last look.
				b := check.Bound{Within: 5*time.Second + time.Millisecond, Every: time.Second}
				err := check.Until(t.Context(), b, check.Check{
					Name:  "all are ready",
					Probe: func(context.Context) error { tries++; return tt.probe(tries) },
				})
				if got := message(err); got != tt.want {
					t.Errorf("error:\n got %q\nwant %q", got, tt.want)
				}
				if took := time.Since(began).Truncate(time.Second); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
			})
		})
	}
}

// A probe that hangs until its context ends says nothing about the condition:
// what was seen before must not be lost to "context deadline exceeded".
func TestUntilKeepsWhatWasSeenBeforeAHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := check.Until(t.Context(), check.Bound{Within: 10 * time.Second, Every: time.Second}, check.Check{
			Name: "the endpoint answers",
			Probe: func(ctx context.Context) error {
				if tries++; tries == 1 {
					return errors.New("connection refused")
				}
				<-ctx.Done()
				return ctx.Err()
			},
		})
		var timeout *check.TimeoutError
		if !errors.As(err, &timeout) {
			t.Fatalf("error is %v, want a TimeoutError", err)
		}
		if got := timeout.LastSeen.Error(); got != "connection refused" || timeout.Tries != 2 {
			t.Errorf("last seen %q after %d tries, want connection refused after 2", got, timeout.Tries)
		}
	})
}

func TestUntilEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := check.Until(ctx, check.Bound{Within: time.Hour, Every: time.Minute}, check.Check{
			Name: "it rains",
			Probe: func(context.Context) error {
				cancel(errStopped)
				return errors.New("the sun shines")
			},
		})
		if !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "the sun shines") {
			t.Errorf("error %q: want the cause of the cancel and what was last seen", err)
		}
	})
}

func TestUntilTellsWhatItSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		tries := 0
		err := check.Until(t.Context(), check.Bound{
			Within: time.Minute, Every: time.Second,
			Seen: func(err error) { seen = append(seen, err.Error()) },
		}, check.Check{Name: "two came", Probe: func(context.Context) error {
			if tries++; tries > 2 {
				return nil
			}
			return fmt.Errorf("%d came", tries-1)
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(seen, ", "); got != "0 came, 1 came" {
			t.Errorf("seen %q", got)
		}
	})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
