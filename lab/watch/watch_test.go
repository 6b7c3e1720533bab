package watch_test

import (
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/watch"
)

var start = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// looked is a look with one pair; fetches below zero are not counted.
func looked(seconds, fetches int) watch.Look {
	p := watch.Pair{Truster: "a.test", Trusted: "b.test", PollSeconds: 15, NextPollBy: at(seconds + 15)}
	if fetches >= 0 {
		p.Fetches, p.CountedSince = fetches, at(seconds)
	}
	return watch.Look{At: at(seconds), Pairs: []watch.Pair{p}}
}

// TestAfter: what one look after the other says of when a server fetched.
func TestAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		looks                    []watch.Look
		fetched, counted, nextBy time.Time
	}{
		"nobody counts":                  {[]watch.Look{looked(0, -1)}, time.Time{}, time.Time{}, at(15)},
		"one look tells nothing":         {[]watch.Look{looked(0, 3)}, time.Time{}, at(0), at(15)},
		"nothing has changed":            {[]watch.Look{looked(0, 3), looked(5, 3)}, time.Time{}, at(0), at(15)},
		"a fetch":                        {[]watch.Look{looked(0, 3), looked(5, 4)}, at(5), at(0), at(20)},
		"none since, and one is due":     {[]watch.Look{looked(0, 3), looked(5, 4), looked(60, 4)}, at(5), at(0), at(20)},
		"a new start that fetched":       {[]watch.Look{looked(0, 3), looked(5, 1)}, at(5), at(0), at(20)},
		"a new start that did not":       {[]watch.Look{looked(0, 3), looked(5, 0)}, time.Time{}, at(0), at(15)},
		"it could not be asked":          {[]watch.Look{looked(0, 3), looked(5, 4), looked(10, -1)}, at(5), time.Time{}, at(20)},
		"it can be asked again":          {[]watch.Look{looked(0, 3), looked(5, 4), looked(10, -1), looked(15, 9)}, at(5), at(15), at(20)},
		"the pair was not there before":  {[]watch.Look{{At: at(0)}, looked(5, 4)}, time.Time{}, at(5), at(20)},
		"it fetched more than once more": {[]watch.Look{looked(0, 3), looked(5, 4), looked(10, 6)}, at(10), at(0), at(25)},
	} {
		var look watch.Look
		for _, next := range tt.looks {
			look = next.After(look)
		}
		if p := look.Pairs[0]; !p.LastFetch.Equal(tt.fetched) || !p.CountedSince.Equal(tt.counted) || !p.NextPollBy.Equal(tt.nextBy) {
			t.Errorf("%s: last fetch %s, counted since %s, next by %s; want %s, %s, %s", name, p.LastFetch, p.CountedSince, p.NextPollBy, tt.fetched, tt.counted, tt.nextBy)
		}
	}
}

// TestAfterLeavesTheLookAlone: a look may be shown while the next one is made.
func TestAfterLeavesTheLookAlone(t *testing.T) {
	before, look := looked(0, 3), looked(5, 4)
	look.After(before)
	if !look.Pairs[0].LastFetch.IsZero() {
		t.Error("the look itself was changed")
	}
}
