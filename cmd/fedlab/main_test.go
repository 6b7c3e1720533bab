package main

import (
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fedlab-dev/fedlab/cmd/fedlab/internal/cli"
	"github.com/fedlab-dev/fedlab/e2e/guide"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

// TestMain lets this binary be fedlab, too: scripts run it under that name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fedlab": main})
}

// TestScripts runs the command as a person would, on a machine whose Docker does
// not answer: no script changes anything outside of its own folder.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			fedlab, err := exec.LookPath("fedlab")
			if err != nil {
				return err
			}
			env.Setenv("FEDLAB", fedlab)
			env.Setenv("FEDLAB_CACHE", filepath.Join(env.WorkDir, ".cache"))
			env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, "kubeconfig"))
			env.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
			return nil
		},
	})
}

// withoutLab is a command of a guide that says the same with and without a lab.
var withoutLab = regexp.MustCompile(`^bin/fedlab (scenario (list|show)|config validate|status --output xml)\b`)

// TestGuidesShowWhatTheCommandSays runs the commands of the guides that need no lab,
// so that a new wording is noticed before the suite brings labs up.
func TestGuidesShowWhatTheCommandSays(t *testing.T) {
	paths, err := filepath.Glob("../../docs/guides/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fedlab, err := exec.LookPath("fedlab")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fedlab, filepath.Join(dir, "bin", "fedlab")); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := guide.Parse(path, source)
		if err != nil {
			t.Fatal(err)
		}
		var steps []guide.Step
		for i, step := range g.Steps {
			if withoutLab.MatchString(step.Command) || step.Command == "echo $?" && i > 0 && withoutLab.MatchString(g.Steps[i-1].Command) {
				steps = append(steps, step)
			}
		}
		ran += len(steps)
		g.Steps = steps
		if err := g.Run(t.Context(), guide.Options{Dir: dir, Env: []string{"LAB=", "FEDLAB_CACHE=" + filepath.Join(dir, "cache"), "DOCKER_HOST=unix:///nowhere/docker.sock"}}); err != nil {
			t.Error(err)
		}
	}
	if ran < 4 {
		t.Errorf("the guides show %d such commands: is the expression of this test current?", ran)
	}
}

// exits CODE PROGRAM ARGS... runs a program that must end with that code. What it
// prints must not have an escape byte: there is no terminal.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(stream), "\x1b") {
			ts.Fatalf("%s has an escape byte", stream)
		}
	}
}

// TestInterrupt presses Ctrl-C while a command waits for a Docker that accepts
// and never answers.
func TestInterrupt(t *testing.T) {
	const stops = cli.Stopping + "\n"
	for command, want := range map[string]string{
		"up":     stops + "fedlab: interrupted; run the same command again to go on, or 'fedlab down' to remove what there is\n",
		"status": stops + "fedlab: interrupted\n",
		"drift":  stops + "fedlab: interrupted\n",
		"down":   stops + "fedlab: interrupted; run the same command again to go on\n",
	} {
		t.Run(command, func(t *testing.T) {
			dir := t.TempDir()
			socket := filepath.Join(dir, "docker.sock")
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			var stderr strings.Builder
			fedlab := exec.CommandContext(t.Context(), "fedlab", command)
			fedlab.Env = append(os.Environ(), "LAB=", "DOCKER_HOST=unix://"+socket, "FEDLAB_CACHE="+dir)
			fedlab.Stderr = &stderr
			if err := fedlab.Start(); err != nil {
				t.Fatal(err)
			}
			waits, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = waits.Close() })
			if err := fedlab.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := fedlab.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
				t.Errorf("ended with %v, want exit code 130", err)
			}
			if stderr.String() != want {
				t.Errorf("it said %q, want %q", stderr.String(), want)
			}
		})
	}
}
