package main

import (
	"context"
	"time"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/local"
)

const (
	// settle is how long a fresh lab is left alone before it counts as idle:
	// Kubernetes' controllers and kubelet's image checks come to rest in it.
	settle = 60 * time.Second
	// span is how long it is watched; a minute holds each of Kubernetes'
	// periods at least once.
	span = 60 * time.Second
)

// idle measures what a cluster of the lab uses while nobody looks at it, on
// average over the clusters.
func (b *bench) idle(ctx context.Context) error {
	if err := pass(ctx, settle); err != nil {
		return err
	}
	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pass(ctx, span); err != nil {
		return err
	}
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	var cpu time.Duration
	var memory int64
	for i := range after {
		cpu += after[i].CPU - before[i].CPU
		memory += after[i].Memory
	}
	n := float64(len(after))
	b.add("cluster-idle-cpu-percent", "%", "of one core, for each cluster", 100*cpu.Seconds()/took.Seconds()/n)
	b.add("cluster-memory-mib", "MiB", "for each cluster, without the file cache", float64(memory)/(1<<20)/n)
	return nil
}

// pass lets time pass: what is measured is what happens meanwhile.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (b *bench) usage(ctx context.Context) (_ []docker.Usage, err error) {
	usages := make([]docker.Usage, len(b.topology.Clusters))
	for i, c := range b.topology.Clusters {
		if usages[i], err = b.driver.Usage(ctx, local.NodeName(b.topology.Name, c.Name)); err != nil {
			return nil, err
		}
	}
	return usages, nil
}
