package docker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

// engine speaks as much of the Engine API 1.41 as the adapter uses, over state
// that a test arranges. Call number failAt, counted from 1, answers 500.
type engine struct {
	mu         sync.Mutex
	calls      []string
	failAt     int
	apiVersion string

	info       string
	version    string
	networks   []network.Summary
	containers []container.Summary
	volumes    []string
	// volumeLabels are those of volumes that have any.
	volumeLabels map[string]map[string]string
	// mounts are what /containers/{id}/json answers.
	mounts []container.MountPoint
	// making are the containers that are listed and cannot be inspected yet.
	making []string
	images []string

	// created is the last request for a network, a container, a commit's or
	// an import's query.
	created any
	// createNetwork, when set, decides about a request for a network.
	createNetwork func(e *engine, req network.CreateRequest) (status int)
	// ports are what /containers/{id}/json answers, running or not.
	ports network.PortMap
	// joined are the networks that /containers/{id}/json answers; nil is none that
	// it knows of.
	joined map[string]*network.EndpointSettings
	// exitCodes are what /containers/{id}/json and /exec/{id}/json answer.
	exitCode int
	// stillRunning is how often /exec/{id}/json says so first.
	stillRunning int
	// beforeExec, when set, runs before an exec gets an answer.
	beforeExec func()
	// exec is the command that an exec runs.
	exec func(stdin io.Reader, stdout, stderr io.Writer)
	// removal answers the removal of a container, 204 if zero.
	removal int
	// startStatus answers the start of a container, 204 if zero.
	startStatus int
	// progress is what the image calls stream.
	progress string
	// archive is what was sent last as a body.
	archive string
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	return &engine{apiVersion: "1.41", progress: `{"status":"done"}`, info: "{}", version: "{}"}
}

// connect serves e and returns a client that found it through the environment.
func connect(t *testing.T, e *engine) *Client {
	t.Helper()
	server := httptest.NewServer(e.handler())
	t.Cleanup(server.Close)
	return dial(t, server.Listener.Addr().String())
}

func dial(t *testing.T, address string) *Client {
	t.Helper()
	for _, name := range []string{"DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_HOST", "tcp://"+address)
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.occupied = func() ([]netip.Prefix, error) { return nil, nil }
	return c
}

func (e *engine) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(w http.ResponseWriter, r *http.Request)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /v1.41"+path, func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			e.calls = append(e.calls, pattern)
			number := len(e.calls)
			fail := number == e.failAt
			e.mu.Unlock()
			if fail {
				answer(w, http.StatusInternalServerError, map[string]string{"message": fmt.Sprintf("injected into call %d", number)})
				return
			}
			do(w, r)
		})
	}
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", e.apiVersion)
	})
	handle("GET /info", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, e.info) })
	handle("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, e.version) })
	e.handleNetworks(handle)
	e.handleContainers(handle)
	e.handleImages(handle)
	return mux
}

type register func(pattern string, do func(w http.ResponseWriter, r *http.Request))

func (e *engine) handleNetworks(handle register) {
	handle("GET /networks", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		answer(w, http.StatusOK, e.networks)
	})
	handle("POST /networks/create", func(w http.ResponseWriter, r *http.Request) {
		var req network.CreateRequest
		decode(r, &req)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.created = req
		if e.createNetwork != nil {
			if status := e.createNetwork(e, req); status >= 400 {
				answer(w, status, map[string]string{"message": "refused by the engine"})
				return
			}
		}
		e.networks = append(e.networks, madeFrom("new", req))
		answer(w, http.StatusCreated, network.CreateResponse{ID: "new"})
	})
	handle("DELETE /networks/{id}", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.networks = slices.DeleteFunc(e.networks, func(n network.Summary) bool { return n.ID == r.PathValue("id") })
		w.WriteHeader(http.StatusNoContent)
	})
	handle("GET /volumes", func(w http.ResponseWriter, _ *http.Request) {
		var list volume.ListResponse
		for _, name := range e.volumes {
			list.Volumes = append(list.Volumes, volume.Volume{Name: name, Labels: e.volumeLabels[name]})
		}
		answer(w, http.StatusOK, list)
	})
	handle("POST /volumes/create", func(w http.ResponseWriter, r *http.Request) {
		var req volume.CreateRequest
		decode(r, &req)
		if !slices.Contains(e.volumes, req.Name) {
			e.volumes = append(e.volumes, req.Name)
		}
		e.volumeLabels = map[string]map[string]string{req.Name: req.Labels}
		answer(w, http.StatusCreated, volume.Volume{Name: req.Name, Labels: req.Labels})
	})
	handle("POST /networks/{id}/disconnect", func(w http.ResponseWriter, _ *http.Request) {
		delete(e.joined, "lab")
		w.WriteHeader(http.StatusOK)
	})
	handle("POST /networks/{id}/connect", func(w http.ResponseWriter, r *http.Request) {
		e.joined["lab"] = &network.EndpointSettings{NetworkID: r.PathValue("id")}
		w.WriteHeader(http.StatusOK)
	})
	handle("DELETE /volumes/{name}", func(w http.ResponseWriter, r *http.Request) {
		e.volumes = slices.DeleteFunc(e.volumes, func(v string) bool { return v == r.PathValue("name") })
		w.WriteHeader(http.StatusNoContent)
	})
}

func (e *engine) handleContainers(handle register) {
	handle("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.Query().Get("filters")
		answer(w, http.StatusOK, e.containers)
	})
	handle("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(e.making, r.PathValue("id")) || !slices.ContainsFunc(e.containers, func(s container.Summary) bool { return s.ID == r.PathValue("id") }) {
			answer(w, http.StatusNotFound, map[string]string{"message": "no such container"})
			return
		}
		var settings *container.NetworkSettings
		if e.joined != nil {
			settings = &container.NetworkSettings{Networks: e.joined}
		}
		answer(w, http.StatusOK, container.InspectResponse{
			State: &container.State{ExitCode: e.exitCode}, HostConfig: &container.HostConfig{PortBindings: e.ports},
			NetworkSettings: settings, Mounts: e.mounts,
		})
	})
	handle("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		var req container.CreateRequest
		decode(r, &req)
		e.created = req
		e.containers = append(e.containers, container.Summary{ID: "made", State: container.StateCreated})
		answer(w, http.StatusCreated, container.CreateResponse{ID: "made"})
	})
	handle("POST /containers/{id}/start", func(w http.ResponseWriter, _ *http.Request) {
		if e.startStatus != 0 {
			answer(w, e.startStatus, map[string]string{"message": "cannot start"})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	handle("POST /containers/{id}/pause", func(w http.ResponseWriter, _ *http.Request) {
		e.startStatus = http.StatusConflict
		w.WriteHeader(http.StatusNoContent)
	})
	handle("POST /containers/{id}/unpause", func(w http.ResponseWriter, _ *http.Request) {
		e.startStatus = 0
		w.WriteHeader(http.StatusNoContent)
	})
	handle("POST /containers/{id}/stop", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.Query().Get("t")
		w.WriteHeader(http.StatusNotModified)
	})
	handle("POST /containers/{id}/wait", func(w http.ResponseWriter, _ *http.Request) {
		e.containers = nil
		answer(w, http.StatusOK, container.WaitResponse{})
	})
	handle("DELETE /containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.RawQuery
		if e.removal >= 400 {
			answer(w, e.removal, map[string]string{"message": "refused by the engine"})
			return
		}
		e.containers = slices.DeleteFunc(e.containers, func(s container.Summary) bool { return s.ID == r.PathValue("id") })
		w.WriteHeader(http.StatusNoContent)
	})
	handle("PUT /containers/{id}/archive", func(_ http.ResponseWriter, r *http.Request) {
		e.keep(r)
		e.created = r.URL.Query().Get("path")
	})
	handle("POST /commit", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.Query()
		answer(w, http.StatusCreated, container.CommitResponse{ID: "sha256:committed"})
	})
	handle("POST /containers/{id}/exec", func(w http.ResponseWriter, r *http.Request) {
		var req container.ExecCreateRequest
		decode(r, &req)
		e.created = req
		answer(w, http.StatusCreated, container.ExecCreateResponse{ID: "exec"})
	})
	handle("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.Query().Encode()
		e.exec(nil, frames(w, stdcopy.Stdout), frames(w, stdcopy.Stderr))
	})
	handle("POST /exec/{id}/start", e.runExec)
	handle("GET /exec/{id}/json", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		running := e.stillRunning > 0
		e.stillRunning--
		answer(w, http.StatusOK, container.ExecInspectResponse{Running: running, ExitCode: &e.exitCode})
	})
}

// runExec takes over the connection as the engine does, and runs e.exec on it.
func (e *engine) runExec(w http.ResponseWriter, r *http.Request) {
	decode(r, &container.ExecStartRequest{})
	if e.beforeExec != nil {
		e.beforeExec()
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if e.exec != nil {
		e.exec(buffered, frames(conn, stdcopy.Stdout), frames(conn, stdcopy.Stderr))
	}
}

func (e *engine) handleImages(handle register) {
	handle("GET /images/json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Id":"sha256:1","RepoTags":["fedlab/node:1"],"Labels":{"a":"b"},"Size":7,"Created":1700000000},
			{"Id":"sha256:2","RepoTags":["<none>:<none>"]}]`)
	})
	handle("GET /images/{ref...}", func(w http.ResponseWriter, r *http.Request) {
		ref := strings.TrimSuffix(r.PathValue("ref"), "/json")
		if ref == "get" {
			_, _ = io.WriteString(w, "archive of "+strings.Join(r.URL.Query()["names"], " "))
			return
		}
		if !slices.Contains(e.images, ref) {
			answer(w, http.StatusNotFound, map[string]string{"message": "no such image"})
			return
		}
		_, _ = fmt.Fprintf(w, `{"Id":"sha256:1","RepoTags":[%q],"Size":7,"Created":"2026-08-01T10:00:00.5Z","Config":{"Labels":{"a":"b"}}}`, ref)
	})
	stream := func(w http.ResponseWriter, r *http.Request) {
		e.keep(r)
		e.created = r.URL.Query()
		_, _ = io.WriteString(w, e.progress)
	}
	handle("POST /images/load", stream)
	handle("POST /images/create", stream)
	handle("POST /images/{ref...}", func(w http.ResponseWriter, r *http.Request) {
		e.created = r.URL.Query()
		w.WriteHeader(http.StatusCreated)
	})
	handle("DELETE /images/{ref...}", func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(e.images, r.PathValue("ref")) {
			answer(w, http.StatusNotFound, map[string]string{"message": "no such image"})
			return
		}
		_, _ = io.WriteString(w, "[]")
	})
}

func (e *engine) keep(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	e.archive = string(body)
}

func madeFrom(id string, req network.CreateRequest) network.Summary {
	n := network.Summary{Network: network.Network{ID: id, Name: req.Name, Driver: req.Driver, Labels: req.Labels, Options: req.Options}}
	if req.IPAM != nil {
		n.IPAM = *req.IPAM
	}
	return n
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func decode(r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		panic(err)
	}
}

// frames writes to one of the two streams of a command's output.
func frames(w io.Writer, stream stdcopy.StdType) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		header := []byte{byte(stream), 0, 0, 0, byte(len(p) >> 24), byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p))}
		if _, err := w.Write(append(header, p...)); err != nil {
			return 0, err
		}
		return len(p), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
