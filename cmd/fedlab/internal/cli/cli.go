// Package cli is the fedlab command: one file per command, what is printed for
// people and for programs, and what exit codes mean.
//
// It refuses to know how anything is done: each command calls the library and
// shows what came back.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/plain"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Streams are where a command reads and writes: results go to Out, all else to
// Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs fedlab with arguments. It prints the error that it returns, once; that
// of a program in the lab, the program has printed.
func Run(ctx context.Context, args []string, streams Streams) error {
	c := newCmd(streams)
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !is[*access.EndedError](err) {
		c.printError(ctx, err)
	}
	return err
}

// newCmd returns what all commands share. Whatever a command writes passes one
// filter: no foreign text in it may reach a terminal as an order.
func newCmd(streams Streams) *cmd {
	return &cmd{
		Streams:    Streams{In: streams.In, Out: plain.Writer(streams.Out), Err: plain.Writer(streams.Err)},
		unfiltered: streams,
	}
}

const apiVersion = "fedlab.dev/v1alpha1"

type cmd struct {
	Streams
	// unfiltered is for colours of our own, and for whoever looks whether there is a
	// terminal.
	unfiltered                        Streams
	lab                               string
	output                            string
	source, archive, mirror, kindNode string
	// path is the command that runs: "fedlab up".
	path string
	// events says that the command prints events, one a line.
	events bool
}

func (c *cmd) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "fedlab",
		Short: "Local labs of federated SPIFFE trust domains on real Kubernetes clusters",
		Long: `fedlab brings up several kind clusters with MetalLB and SPIRE, federates their
trust domains, and runs demo workloads that call each other over mTLS.

  fedlab setup && fedlab up      from a bare machine to a running lab
  fedlab status                  is every part well?
  fedlab down                    leave no trace`,
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("fedlab {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version; 'fedlab version' also lists the components")
	root.PersistentFlags().StringVar(&c.lab, "lab", defaultLab(), "the lab: a preset or the path of a lab file; $LAB is the default")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		c.path = cmd.CommandPath()
		if c.output != "text" && c.output != "json" {
			return usage(cmd, fmt.Errorf("unknown output %q: want text or json", c.output))
		}
		return nil
	}
	_ = root.RegisterFlagCompletionFunc("lab", completeLab)
	completes(root, "output", func() []string { return []string{"text", "json"} })
	root.AddGroup(&cobra.Group{ID: "lab", Title: "Labs:"}, &cobra.Group{ID: "machine", Title: "The machine:"}, &cobra.Group{ID: "file", Title: "Lab files:"})
	root.AddCommand(
		c.up(), c.status(), c.doctor(), c.drift(), c.watch(), c.scenario(), c.down(), c.list(), c.plan(), c.openOffer(), c.ui(), c.kubeconfig(), c.kubectl(), c.spire(), c.logs(), c.svid(), c.evidence(),
		c.explain(), c.setup(), c.images(),
		c.init(), c.config(),
		c.version(), exitCodesTopic(),
	)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultCompletionCmd()
	strict(root)
	return root
}

func defaultLab() string {
	if lab := os.Getenv("LAB"); lab != "" {
		return lab
	}
	return config.DefaultPreset
}

// open reads the lab file that --lab names. That it cannot be read is wrong usage.
func (c *cmd) open() (config.File, error) {
	f, err := config.For(demo.Apps()).Open(c.lab)
	if is[*fs.PathError](err) || errors.Is(err, config.ErrFolder) {
		err = &usageError{command: c.path, err: err}
	}
	return f, err
}

// noFile reports whether opening a lab file failed because there is none.
func noFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, config.ErrFolder)
}

func (c *cmd) topology() (topology.Topology, error) {
	f, err := c.open()
	return f.Topology, err
}

// labName returns the name of the lab that --lab names, also where its file is
// gone: then it is the name itself.
func (c *cmd) labName() (string, error) {
	t, err := c.topology()
	if noFile(err) && c.labIsBareName() {
		return c.lab, nil
	}
	return t.Name, err
}

// labIsBareName reports whether --lab may be a lab's name and is no path.
func (c *cmd) labIsBareName() bool { return !strings.ContainsAny(c.lab, "/.") }

// json prints a result for programs: on one line where events come before it.
func (c *cmd) json(kind string, result any) error {
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	fields["apiVersion"], fields["kind"] = apiVersion, kind
	out := json.NewEncoder(c.Out)
	if !c.events {
		out.SetIndent("", "  ")
	}
	return out.Encode(fields)
}

// printf writes a line for people to Err.
func (c *cmd) printf(format string, args ...any) {
	// A terminal that is gone is no reason to stop.
	_, _ = fmt.Fprintf(c.Err, format, args...)
}
