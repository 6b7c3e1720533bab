package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// runtimeName is what Docker calls the runtime that does without some
// capabilities.
const runtimeName = "fedlab"

// The runtime is a small program of its own and not fedlab under another name:
// Docker starts it several times per container, where this one costs some
// milliseconds, and what a person's Docker runs should not change with each
// fedlab. It is embedded as source, because an installed fedlab has no source
// tree, and built on the machine, because no binary is kept in the repository.
//
//go:embed ociruntime/main.go
var runtimeSource []byte

// ociRuntime builds the runtime and registers it as Docker's default.
type ociRuntime struct {
	// drop are the capabilities it takes out, separated by commas.
	drop string
}

func runtimeWithout(capabilities []string) ociRuntime {
	return ociRuntime{drop: strings.Join(capabilities, ",")}
}

func (r ociRuntime) turn() turn { return turnRuntime }

func (r ociRuntime) String() string {
	return fmt.Sprintf("make %s, built here where it is not there yet, Docker's default OCI runtime in %s; it does without %s",
		r.path(), daemonConfig, r.drop)
}

// path names the program after all that it is made from: one that is there is
// the right one, and a newer one does not replace what containers still use.
func (r ociRuntime) path() string {
	digest := sha256.Sum256(append([]byte(r.drop+"\n"), runtimeSource...))
	return fmt.Sprintf("/usr/local/lib/fedlab/oci-runtime-%x", digest[:6])
}

func (r ociRuntime) Apply(ctx context.Context, sys System) error {
	if _, err := sys.Programs.Look(r.path()); err != nil {
		if err := r.build(ctx, sys); err != nil {
			return err
		}
	}
	config, _, err := read(sys.Files, daemonConfig)
	if err != nil {
		return err
	}
	next, err := r.register([]byte(config))
	if err != nil {
		return err
	}
	return sys.Files.WriteFile(daemonConfig, next, 0o644)
}

// build leaves the source beside the program, for whoever wonders what their
// Docker runs.
func (r ociRuntime) build(ctx context.Context, sys System) error {
	path := r.path()
	if err := sys.Files.WriteFile(path+".go", runtimeSource, 0o644); err != nil {
		return err
	}
	if _, err := sys.Programs.Run(ctx, r.compile(path+".go", path+".partial")); err != nil {
		return err
	}
	return sys.Files.Rename(path+".partial", path)
}

// compile needs the standard library only, whatever module or workspace this
// program is called in.
func (r ociRuntime) compile(source, program string) Command {
	return Command{
		Program: "go",
		Args:    []string{"build", "-trimpath", "-ldflags=-s -w -X main.missing=" + r.drop, "-o", program, source},
		Env:     []string{"CGO_ENABLED=0", "GO111MODULE=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOENV=off", "GOOS=", "GOARCH=", "GOEXPERIMENT="},
	}
}

// register returns daemon.json with the runtime in it and all else as it was.
// The same bytes come back when nothing has to change. A default runtime that
// somebody chose is not taken away.
func (r ociRuntime) register(config []byte) ([]byte, error) {
	settings, err := readSettings(config)
	if err != nil {
		return nil, err
	}
	runtimes, err := settings.runtimes()
	if err != nil {
		return nil, err
	}
	chosen, err := settings.defaultRuntime()
	if err != nil {
		return nil, err
	}
	var entry struct{ Path string }
	if raw, ok := runtimes[runtimeName]; ok {
		if err := json.Unmarshal(raw, &entry); err != nil {
			return nil, fmt.Errorf("read runtime %s of %s: %w", runtimeName, daemonConfig, err)
		}
	}
	switch chosen {
	case runtimeName:
		if entry.Path == r.path() {
			return config, nil
		}
	case "", "runc", "io.containerd.runc.v2":
	default:
		return nil, fmt.Errorf("%s makes %s the default runtime", daemonConfig, chosen)
	}
	var failed error
	encode := func(value any) json.RawMessage {
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		failed = errors.Join(failed, encoder.Encode(value))
		return out.Bytes()
	}
	runtimes[runtimeName] = encode(map[string]string{"path": r.path()})
	settings["runtimes"] = encode(runtimes)
	settings["default-runtime"] = encode(runtimeName)
	next := encode(settings)
	return next, failed
}
