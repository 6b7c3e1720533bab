// Package docker speaks to one Docker engine through its API, from version
// 1.40 on (Docker 19.03). It is the only importer of Docker's client, and knows
// networks, containers, volumes and images.
//
// It refuses to know what a lab is: names, labels and subnets come from the
// caller. It never runs the docker command and never reads text that is meant
// for people.
package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Client is a connection to one Docker engine. It is safe for concurrent use.
type Client struct {
	api       *client.Client
	engine    Engine
	occupied  func() ([]netip.Prefix, error)
	addresses func() ([]netip.Addr, error)
	contained func() bool
}

// New makes a client for the engine that [Find] finds. It connects to nothing
// yet; see [Client.Ping]. The error is an [*UnreachableError] when Docker's
// configuration names no engine.
//
// The caller closes the client.
func New() (*Client, error) {
	engine, err := Find()
	if err != nil {
		return nil, &UnreachableError{Err: err}
	}
	options, err := engine.options()
	if err != nil {
		return nil, &UnreachableError{Host: engine.Host, Err: err}
	}
	api, err := client.New(append(options, client.WithUserAgent("fedlab"))...)
	if err != nil {
		return nil, fmt.Errorf("configure docker client: %w", err)
	}
	return &Client{api: api, engine: engine, occupied: occupied, addresses: addresses, contained: contained}, nil
}

// Engine says where the engine is.
func (c *Client) Engine() Engine { return c.engine }

// Close gives up idle connections.
func (c *Client) Close() error { return c.api.Close() }

// Ping agrees on an API version with the engine. The error is an
// [*UnreachableError] when nothing answers on this machine, and an
// [*OutOfReachError] when nothing answers on another one: an answer from there would
// be of no use to a lab.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err == nil {
		return nil
	}
	if own, unknown := c.addresses(); unknown == nil {
		if cause := c.engine.elsewhere(ctx, own); cause != "" {
			return &OutOfReachError{Host: c.engine.Host, Cause: fmt.Sprintf("%s, and does not answer (%v)", cause, err)}
		}
	}
	return c.failed(err, "reach docker engine")
}

// UnreachableError says that no Docker engine answers at an address. Host is
// empty where Docker's configuration names none.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	if e.Host == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("docker engine at %s does not answer: %v", e.Host, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// failed says what was being done when a call failed, and gives a failed
// connection its type. It is nil for a call that did not fail.
func (c *Client) failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if client.IsErrConnectionFailed(err) {
		// The client's own words name the address once more.
		if dial := (*net.OpError)(nil); errors.As(err, &dial) {
			err = dial
		}
		err = &UnreachableError{Host: c.engine.Host, Err: err}
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

func filters(labels map[string]string) client.Filters {
	f := client.Filters{}
	for k, v := range labels {
		f.Add("label", k+"="+v)
	}
	return f
}

// gone reports that what a call was about does not exist.
func gone(err error) bool { return errdefs.IsNotFound(err) }

// unlessGone is what came of removing something: that it is gone already is as good.
func unlessGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// CgroupV1 reports whether the engine's kernel has control groups of version 1.
func (c *Client) CgroupV1(ctx context.Context) (bool, error) {
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return false, c.failed(err, "ask docker engine for its version of control groups")
	}
	return info.Info.CgroupVersion == "1", nil
}

// ID returns what tells the engine from all others, or its address where it has no
// ID of its own.
func (c *Client) ID(ctx context.Context) (string, error) {
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return "", c.failed(err, "ask docker engine who it is")
	}
	return cmp.Or(info.Info.ID, c.api.DaemonHost()), nil
}
