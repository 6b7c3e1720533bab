package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// operation is one method of the client, arranged so that it makes each of its
// calls. undone is the call that only cleans up: its failure is joined to the
// one that made it necessary.
type operation struct {
	arrange func(*engine)
	do      func(context.Context, *Client) error
	want    string
}

func operations() map[string]operation {
	return map[string]operation{
		"Reach": {
			do:   func(ctx context.Context, c *Client) error { return c.Reach(ctx) },
			want: "",
		},
		"Network": {
			do:   func(ctx context.Context, c *Client) error { _, _, err := c.Network(ctx, "lab"); return err },
			want: "list networks: ",
		},
		"EnsureNetwork": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.EnsureNetwork(ctx, "lab", ours, candidates, firstBlock)
				return err
			},
			want: "network",
		},
		"EnsureNetwork made twice": {
			arrange: func(e *engine) {
				e.networks = []network.Summary{existing("1", "lab", "10.192.0.0/18", ours), existing("2", "lab", "10.192.64.0/18", ours)}
			},
			do: func(ctx context.Context, c *Client) error {
				_, err := c.EnsureNetwork(ctx, "lab", ours, candidates, firstBlock)
				return err
			},
			want: "network",
		},
		"RemoveNetwork": {
			arrange: func(e *engine) { e.networks = []network.Summary{existing("1", "lab", "10.192.0.0/18", ours)} },
			do:      func(ctx context.Context, c *Client) error { return c.RemoveNetwork(ctx, "lab") },
			want:    "network",
		},
		"Containers": {
			arrange: func(e *engine) {
				e.containers = []container.Summary{{ID: "1", Names: []string{"/one"}, State: container.StateExited}}
			},
			do:   func(ctx context.Context, c *Client) error { _, err := c.Containers(ctx, ours); return err },
			want: "container",
		},
		"PortBindings": {
			arrange: func(e *engine) { e.containers = []container.Summary{{ID: "1"}} },
			do:      func(ctx context.Context, c *Client) error { _, _, err := c.PortBindings(ctx, "1"); return err },
			want:    "inspect container 1: ",
		},
		"Address": {
			arrange: func(e *engine) { e.containers = []container.Summary{{ID: "1"}} },
			do:      func(ctx context.Context, c *Client) error { _, _, err := c.Address(ctx, "1", "lab"); return err },
			want:    "inspect container 1: ",
		},
		"StartContainer": {
			do:   func(ctx context.Context, c *Client) error { return c.StartContainer(ctx, "1") },
			want: "start container 1: ",
		},
		"FreezeContainer": {
			do:   func(ctx context.Context, c *Client) error { return c.FreezeContainer(ctx, "1") },
			want: "freeze container 1: ",
		},
		"StopContainer": {
			do:   func(ctx context.Context, c *Client) error { return c.StopContainer(ctx, "1", time.Second) },
			want: "stop container 1: ",
		},
		"RemoveContainer": {
			arrange: func(e *engine) { e.removal = 409 },
			do:      func(ctx context.Context, c *Client) error { return c.RemoveContainer(ctx, "1") },
			want:    "remove container 1: ",
		},
		"RunDetached": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.RunDetached(ctx, ContainerSpec{Image: "node"})
				return err
			},
			want: "container",
		},
		"CopyTo": {
			do: func(ctx context.Context, c *Client) error {
				return c.CopyTo(ctx, "1", "/kind", strings.NewReader("tar"))
			},
			want: "copy files to /kind of container 1: ",
		},
		"Commit": {
			do:   func(ctx context.Context, c *Client) error { _, err := c.Commit(ctx, "1", "node:1", nil); return err },
			want: "commit container 1 as node:1: ",
		},
		"Exec": {
			do: func(ctx context.Context, c *Client) error {
				_, err := c.Exec(ctx, "1", []string{"true"}, nil)
				return err
			},
			want: "run true in container 1: ",
		},
		"Image": {
			arrange: func(e *engine) { e.images = []string{"node:1"} },
			do:      func(ctx context.Context, c *Client) error { _, _, err := c.Image(ctx, "node:1"); return err },
			want:    "inspect image node:1: ",
		},
		"Images": {
			do:   func(ctx context.Context, c *Client) error { _, err := c.Images(ctx, ours); return err },
			want: "list images: ",
		},
		"LoadImages": {
			do:   func(ctx context.Context, c *Client) error { return c.LoadImages(ctx, strings.NewReader("tar")) },
			want: "load images: ",
		},
		"SaveImages": {
			do: func(ctx context.Context, c *Client) error {
				tar, err := c.SaveImages(ctx, []string{"node:1"})
				if err != nil {
					return err
				}
				return tar.Close()
			},
			want: "save images: ",
		},
		"Import": {
			do: func(ctx context.Context, c *Client) error {
				return c.Import(ctx, strings.NewReader("tar"), "node:1", nil)
			},
			want: "import image node:1: ",
		},
		"RemoveImage": {
			arrange: func(e *engine) { e.images = []string{"node:1"} },
			do:      func(ctx context.Context, c *Client) error { return c.RemoveImage(ctx, "node:1") },
			want:    "remove image node:1: ",
		},
	}
}

// TestEachCallFailing lets each call of each operation fail in turn.
func TestEachCallFailing(t *testing.T) {
	arranged := func(t *testing.T, op operation) *engine {
		t.Helper()
		e := newEngine(t)
		if op.arrange != nil {
			op.arrange(e)
		}
		return e
	}
	for name, op := range operations() {
		t.Run(name, func(t *testing.T) {
			e := arranged(t, op)
			if err := op.do(t.Context(), connect(t, e)); err != nil {
				t.Fatalf("nothing fails, and yet: %v", err)
			}
			calls := e.calls
			if len(calls) == 0 {
				t.Fatal("made no call")
			}
			for i, call := range calls {
				e := arranged(t, op)
				e.failAt = i + 1
				err := op.do(t.Context(), connect(t, e))
				if injected := fmt.Sprintf("injected into call %d", i+1); op.wants(err, call, injected) {
					continue
				}
				t.Errorf("call %d, %s, fails: error %v", i+1, call, err)
			}
		})
	}
}

// wants holds when err names the operation and the cause. The start of a
// command takes over its connection, and Docker's client drops the answer's
// text there.
func (op operation) wants(err error, call, injected string) bool {
	if call == "POST /exec/{id}/start" {
		injected = "received 500"
	}
	return err != nil && strings.Contains(err.Error(), op.want) && strings.Contains(err.Error(), injected)
}

// TestUnreachable checks that each operation tells an engine that is not there
// from one that refuses.
func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	address := server.Listener.Addr().String()
	server.Close()
	ops := operations()
	ops["Ping"] = operation{
		do:   func(ctx context.Context, c *Client) error { return c.Ping(ctx) },
		want: "reach docker engine: docker engine at tcp://" + address + " does not answer: ",
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			err := op.do(t.Context(), dial(t, address))
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), op.want) {
				t.Fatalf("error %v", err)
			}
			if unreachable.Host != "tcp://"+address {
				t.Errorf("host %q, want %q", unreachable.Host, address)
			}
		})
	}
}

func TestPing(t *testing.T) {
	tests := map[string]string{
		"1.41": "",
		"1.60": "",
		"1.24": "reach docker engine: API version 1.24 is not supported by this client: the minimum supported API version is 1.40",
	}
	for version, want := range tests {
		t.Run(version, func(t *testing.T) {
			e := newEngine(t)
			e.apiVersion = version
			if err := connect(t, e).Ping(t.Context()); message(err) != want {
				t.Errorf("error %q, want %q", message(err), want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	e := newEngine(t)
	e.images = []string{"fedlab/node:1"}
	c := connect(t, e)

	if _, found, err := c.Image(t.Context(), "fedlab/node:2"); found || err != nil {
		t.Errorf("absent image: found %t, error %v", found, err)
	}
	got, found, err := c.Image(t.Context(), "fedlab/node:1")
	want := Image{ID: "sha256:1", References: []string{"fedlab/node:1"}, Labels: map[string]string{"a": "b"}, Size: 7}
	if !found || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, found %t, error %v, want %+v", got, found, err, want)
	}

	list, err := c.Images(t.Context(), ours)
	if err != nil || len(list) != 2 || !reflect.DeepEqual(list[0], want) || list[1].References != nil {
		t.Errorf("list %+v, error %v", list, err)
	}

	if err := c.RemoveImage(t.Context(), "fedlab/node:2"); err != nil {
		t.Errorf("remove absent image: %v", err)
	}
	tar, err := c.SaveImages(t.Context(), []string{"a:1", "b:1"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(tar)
	if err := errors.Join(err, tar.Close()); err != nil || string(body) != "archive of a:1 b:1" {
		t.Errorf("archive %q, error %v", body, err)
	}
}

func TestImageStreams(t *testing.T) {
	tests := map[string]struct{ progress, err string }{
		"good":       {`{"status":"one"}{"stream":"two"}`, ""},
		"late error": {`{"status":"one"}{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}`, "no space left on device"},
		"cut short":  {`{"status":"one"}{"stat`, "read progress: unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.progress = tt.progress
			c := connect(t, e)
			want := func(prefix string) string {
				if tt.err == "" {
					return ""
				}
				return prefix + tt.err
			}
			if err := c.LoadImages(t.Context(), strings.NewReader("tar")); message(err) != want("load images: ") {
				t.Errorf("load: %q, want %q", message(err), want("load images: "))
			}
			err := c.Import(t.Context(), strings.NewReader("root"), "fedlab/root:1", []string{"ENV a=b", "CMD sh"})
			if message(err) != want("import image fedlab/root:1: ") {
				t.Errorf("import: %q, want %q", message(err), want("import image fedlab/root:1: "))
			}
			query := e.created.(url.Values)
			if e.archive != "root" || query.Get("fromSrc") != "-" || query.Get("repo") != "fedlab/root:1" || len(query["changes"]) != 2 {
				t.Errorf("sent %q with %v", e.archive, query)
			}
		})
	}
}
