// Command bench measures a lab against bare kind clusters, in one run on one
// machine, so that the ratios mean something on noisy machines, too. It prints a
// table for people and, for machines, one line "bench NAME VALUE" per figure.
//
// It brings up and removes a lab and clusters of its own, whose names start with
// "bench".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type figure struct {
	name, unit, meaning string
	value               float64
}

type bench struct {
	driver   *local.Driver
	lab      config.Lab
	topology topology.Topology
	figures  []figure
}

func run(ctx context.Context, out io.Writer) (err error) {
	name := os.Getenv("LAB")
	if name == "" {
		name = config.DefaultPreset
	}
	format := config.For(demo.Apps())
	f, err := format.Open(name)
	if err != nil {
		return err
	}
	d, err := local.New(local.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	b := &bench{driver: d, lab: renamed(f.Lab, "bench")}
	if b.topology, err = format.Topology(b.lab); err != nil {
		return err
	}
	// Images are not part of any figure.
	if _, err := d.Parts.Images.Ensure(ctx, true, nil); err != nil {
		return err
	}
	// What was measured before something failed is worth reading, too.
	return errors.Join(b.measure(ctx), b.print(out))
}

// renamed returns the lab under a name of its own, off the ports that the lab
// itself may be using.
func renamed(l config.Lab, name string) config.Lab {
	l.Metadata.Name = name
	l.Spec.Workloads = slices.Clone(l.Spec.Workloads)
	for i, w := range l.Spec.Workloads {
		if expose, err := netip.ParseAddrPort(w.Expose); err == nil {
			l.Spec.Workloads[i].Expose = netip.AddrPortFrom(expose.Addr(), expose.Port()+10000).String()
		}
	}
	return l
}

func (b *bench) writeLabFile(path string) error {
	data, err := config.Marshal(b.lab)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func (b *bench) add(name, unit, meaning string, value float64) {
	b.figures = append(b.figures, figure{name: name, unit: unit, meaning: meaning, value: value})
}

// rounds is how often bare clusters and the lab are brought up, in turn. The
// middle of each counts: a machine is slow at times, and now and then a kubelet
// puts off the start of an API server by ten seconds or more, which in one of
// the two would spoil the ratio of its round.
const rounds = 5

func (b *bench) measure(ctx context.Context) (err error) {
	defer func() {
		_, downErr := b.driver.Down(context.WithoutCancel(ctx), b.topology.Name)
		err = errors.Join(err, downErr)
	}()
	var bares, ups []float64
	for round := range rounds {
		if _, err := b.driver.Down(ctx, b.topology.Name); err != nil {
			return err
		}
		bare, err := b.bare(ctx)
		if err != nil {
			return fmt.Errorf("measure bare clusters: %w", err)
		}
		up, err := timed(func() error { return b.driver.Up(ctx, b.topology) })
		if err != nil {
			return fmt.Errorf("measure up: %w", err)
		}
		bares, ups = append(bares, bare.Seconds()), append(ups, up.Seconds())
		_, _ = fmt.Fprintf(os.Stderr, "round %d of %d: bare %.2f s, up %.2f s\n", round+1, rounds, bare.Seconds(), up.Seconds())
	}
	again, err := timed(func() error { return b.driver.Up(ctx, b.topology) })
	if err != nil {
		return fmt.Errorf("measure second up: %w", err)
	}
	b.add("bare-seconds", "s", fmt.Sprintf("%d bare kind clusters side by side, until their nodes are ready", len(b.topology.Clusters)), middle(bares))
	b.add("up-seconds", "s", "the lab, until a call has crossed each relationship", middle(ups))
	b.add("up-over-bare", "", "lab time ÷ bare time, medians", middle(ups)/middle(bares))
	b.add("up-again-seconds", "s", "up of a lab that is up", again.Seconds())
	if err := b.idle(ctx); err != nil {
		return fmt.Errorf("measure idle lab: %w", err)
	}
	if err := b.propagation(ctx); err != nil {
		return fmt.Errorf("measure propagation: %w", err)
	}
	change, err := b.appChange(ctx)
	if err != nil {
		return fmt.Errorf("measure change of a demo program: %w", err)
	}
	b.add("app-change-seconds", "s", "from a changed source file of a demo program to the new program answering", change.Seconds())
	down, err := timed(func() error {
		_, err := b.driver.Down(ctx, b.topology.Name)
		return err
	})
	b.add("down-seconds", "s", "until no trace is left", down.Seconds())
	return err
}

// middle returns the median of an odd number of values.
func middle(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func timed(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}

// readyBound is how long a node may take; ten times what an idle machine needs.
const readyBound = 4 * time.Minute

// bare creates as many clusters as the lab has, of the same node image and with
// the same settings, and nothing in them.
func (b *bench) bare(ctx context.Context) (_ time.Duration, err error) {
	const name = "bench-bare"
	parts := b.driver.Parts
	set, err := parts.Images.Ensure(ctx, true, nil)
	if err != nil {
		return 0, err
	}
	defer func() {
		_, downErr := b.driver.Down(context.WithoutCancel(ctx), name)
		err = errors.Join(err, downErr)
	}()
	return timed(func() error {
		if _, _, err := parts.Networks.Ensure(ctx, name); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		for _, c := range b.topology.Clusters {
			group.Go(func() error {
				err := parts.Nodes.Create(ctx, lab.NodeSpec{
					Lab: name, Cluster: c.Name, Image: set.Node, DefaultCNI: set.DefaultCNI, Pods: c.PodSubnet, Services: c.ServiceSubnet,
				})
				if err != nil {
					return err
				}
				kubeconfig, err := parts.Kubeconfigs.Kubeconfig(name, c.Name)
				if err != nil {
					return err
				}
				access, err := parts.Connect(kubeconfig)
				if err != nil {
					return err
				}
				return check.Until(ctx, check.Bound{Within: readyBound, Every: 250 * time.Millisecond},
					check.Check{Name: "the node is ready", Probe: access.Objects.NodeReady})
			})
		}
		return group.Wait()
	})
}

func (b *bench) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FIGURE\tVALUE\tWHAT IT IS")
	for _, f := range b.figures {
		_, _ = fmt.Fprintf(w, "%s\t%.2f %s\t%s\n", f.name, f.value, f.unit, f.meaning)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range b.figures {
		if _, err := fmt.Fprintf(out, "bench %s %.2f\n", f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}
