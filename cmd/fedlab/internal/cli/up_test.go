package cli

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
)

// TestUpEndsWithWhatToTryNext: three commands that the lab has, with --lab where
// it needs that.
func TestUpEndsWithWhatToTryNext(t *testing.T) {
	t.Setenv("LAB", "")
	for lab, want := range map[string]string{
		"quotes": "lab quotes is up; nothing had to be changed (0.0s)\n\nto try next:\n" +
			"  fedlab status\n  fedlab open broker-webapp\n  fedlab scenario run drift/deleted --pause\n",
		"enterprise": "lab enterprise is up; nothing had to be changed (0.0s)\n\nto try next:\n" +
			"  fedlab status --lab enterprise\n  fedlab open frontend --lab enterprise\n  fedlab scenario run drift/deleted --pause --lab enterprise\n",
	} {
		f, err := config.For(demo.Apps()).Open(lab)
		if err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		c := &cmd{Streams: Streams{Out: &out, Err: &stderr}, output: "text", lab: lab}
		if err := c.upDone(f.Topology, &progress{began: time.Now()}); err != nil || stderr.String() != want {
			t.Errorf("error %v; it says %q, want %q", err, stderr.String(), want)
		}
	}
	f, err := config.For(demo.Apps()).Open("quotes")
	if err != nil {
		t.Fatal(err)
	}
	f.Topology.Relationships, f.Topology.Workloads = nil, nil
	t.Setenv("LAB", "quotes")
	if got, want := (&cmd{lab: "quotes"}).next(f.Topology), []string{"fedlab status", "fedlab open", "fedlab drift"}; !slices.Equal(got, want) {
		t.Errorf("a lab without pages and relationships: %q, want %q", got, want)
	}
}
