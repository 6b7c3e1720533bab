package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/evidence"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/report"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

func (c *cmd) evidence() *cobra.Command {
	return &cobra.Command{
		Use:     "evidence [DIR]",
		GroupID: "lab",
		Short:   "Collect logs, events and SPIRE's state into a folder",
		Long: `evidence writes into DIR, which must be new or empty: the status of the lab, the
logs of all pods, also of their earlier runs, events, objects, and the bundles,
relationships, agents and entries of each SPIRE server. Without DIR it makes a
folder below ./evidence. index.html in the folder opens in a browser and begins with
what is wrong. The lab may be broken: evidence lists what it cannot read.

You may pass the folder on. evidence reads only the lab's own namespaces, only named
fields of objects, and never a Secret. It removes private keys, tokens and passwords
from each file, also inside of JSON, YAML or base64.`,
		Args: atMostOneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				dir := filepath.Join("evidence", t.Name+"-"+time.Now().Format("20060102-150405"))
				if len(args) == 1 {
					dir = args[0]
				}
				s, err := d.Evidence(cmd.Context(), t, dir)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json("Evidence", s)
				}
				for _, p := range s.Problems {
					c.printf("not collected: %s: %s\n", p.Path, p.Reason)
				}
				c.printf("%d files\n", len(s.Files))
				_, _ = fmt.Fprintln(c.Out, s.Dir)
				return nil
			})
		},
	}
}

// written is a piece that is written to a stream.
func written(path, title string, write func(io.Writer) error) evidence.Piece {
	return evidence.Piece{Path: path, Title: title, Read: func(context.Context) (any, error) {
		var text bytes.Buffer
		err := write(&text)
		return text.Bytes(), err
	}}
}

// evidenceOf collects evidence of a claim that does not hold, next to its record. Where it
// cannot, the record is still there.
func (c *cmd) evidenceOf(ctx context.Context, d *local.Driver, t topology.Topology, dir string, r trial.Record) {
	dir = filepath.Join(dir, "evidence-"+strings.TrimSuffix(report.FileOf(r), ".json"))
	_, err := d.Evidence(ctx, t, dir,
		written("scenario.txt", "What the scenario saw", func(w io.Writer) error { return report.Console(w, r, false) }),
		written("report.html", "The history of bundles, and all calls: the report", func(w io.Writer) error { return report.HTML(w, []trial.Record{r}) }))
	if err != nil {
		c.printf("no evidence: %v\n", err)
		return
	}
	c.printf("evidence: %s\n", filepath.Join(dir, "index.html"))
}
