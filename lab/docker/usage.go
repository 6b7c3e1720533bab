package docker

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Usage is what a container has used and uses.
type Usage struct {
	// CPU is the time that all cores together have worked for it.
	CPU time.Duration
	// Memory is what it holds in bytes, without the cache of files that the
	// kernel would drop for somebody else.
	Memory int64
}

// Usage reads what a running container uses.
func (c *Client) Usage(ctx context.Context, id string) (_ Usage, err error) {
	answer, err := c.api.ContainerStats(ctx, id, client.ContainerStatsOptions{Stream: false})
	if err != nil {
		return Usage{}, c.failed(err, "read usage of container %.12s", id)
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	var stats container.StatsResponse
	if err := json.NewDecoder(answer.Body).Decode(&stats); err != nil {
		return Usage{}, c.failed(err, "read usage of container %.12s", id)
	}
	memory := stats.MemoryStats.Usage
	// cgroup v1 and v2 name the same thing differently.
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := stats.MemoryStats.Stats[name]; ok && cache < memory {
			memory -= cache
			break
		}
	}
	return Usage{CPU: time.Duration(stats.CPUStats.CPUUsage.TotalUsage), Memory: int64(memory)}, nil
}
