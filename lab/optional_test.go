package lab_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The images of optional programs are made with all others, before a cluster is, and each
// once.
func TestUpAsksForOptionalPrograms(t *testing.T) {
	asked := quotes(t)
	for i := range asked.Workloads {
		asked.Workloads[i].App.Optional = []string{topology.SPIFFEHelper, topology.Ghostunnel}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.up(t, w.driver(t), asked); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.Ensure node ghostunnel spiffe-helper") {
			t.Errorf("calls %q", w.calls)
		}
	})
}
