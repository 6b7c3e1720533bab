package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// traces is what a lab may leave on a machine, each kind a sorted list of names.
// Images are not among them: they may stay.
type traces struct {
	containers, networks, volumes []string
	// contexts are the contexts, clusters and users of the kubeconfig file.
	contexts []string
	// files are those below ~/.kube, and what the suite's commands left in their
	// folder for temporary files.
	files []string
	// processes are those that the suite's commands have started.
	processes []string
}

// tracesNow looks at the machine.
func tracesNow(ctx context.Context, s *subject) (t traces, err error) {
	var errs [6]error
	t.containers, errs[0] = docker(ctx, "ps", "--all", "--format", "{{.Names}}")
	t.networks, errs[1] = docker(ctx, "network", "ls", "--format", "{{.Name}}")
	t.volumes, errs[2] = docker(ctx, "volume", "ls", "--quiet")
	t.contexts, errs[3] = contexts()
	t.files, errs[4] = s.files()
	t.processes, errs[5] = s.processes()
	return t, errors.Join(errs[:]...)
}

// leftBehind returns nil when the machine is as it was before, as far as labs
// are concerned.
//
// Others may bring labs up and down next to the suite. What is new on the machine
// and belongs to another lab that is there is not ours: a container or network
// that carries another lab's name, a volume that some container uses, a context
// of another cluster. Everything else that is new counts. Files and processes
// are told apart by the folder for temporary files, which is the suite's own.
func leftBehind(ctx context.Context, s *subject, before traces) error {
	now, err := tracesNow(ctx, s)
	if err != nil {
		return err
	}
	var errs []error
	check := func(what string, before, now []string, others func(string) bool) {
		for _, name := range now {
			if !slices.Contains(before, name) && !others(name) {
				errs = append(errs, fmt.Errorf("%s %s is left", what, name))
			}
		}
		// What was there and is gone now was perhaps another's to remove, but
		// never the suite's.
		for _, name := range before {
			if strings.Contains(name, s.graph.Name) && !slices.Contains(now, name) {
				errs = append(errs, fmt.Errorf("%s %s was there before and is gone", what, name))
			}
		}
	}
	nobody := func(string) bool { return false }
	another := func(name string) bool { return !strings.Contains(name, s.graph.Name) }
	inUse := func(volume string) bool {
		users, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "volume="+volume)
		errs = append(errs, err)
		return len(users) > 0
	}
	check("container", before.containers, now.containers, another)
	check("network", before.networks, now.networks, another)
	check("volume", before.volumes, now.volumes, inUse)
	check("kubeconfig's", before.contexts, now.contexts, another)
	check("file", before.files, now.files, nobody)
	check("process", before.processes, now.processes, nobody)
	// Also those that were made and forgotten on the way.
	for _, volume := range s.volumes {
		if slices.Contains(now.volumes, volume) {
			errs = append(errs, fmt.Errorf("volume %s of one of the lab's containers is left", volume))
		}
	}
	return errors.Join(errs...)
}

// noteVolumes remembers which volumes the lab's containers have: they have no
// names by which they could be told later.
func (s *subject) noteVolumes(ctx context.Context) error {
	containers, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "name=^/"+s.graph.Name+"-")
	if err != nil || len(containers) == 0 {
		return err
	}
	for _, container := range containers {
		volumes, err := docker(ctx, "inspect", "--format", `{{range .Mounts}}{{if .Name}}{{println .Name}}{{end}}{{end}}`, container)
		// What the engine is still making, or has removed meanwhile, cannot be
		// inspected. Volumes of it that stay are new ones that nobody uses.
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return err
		}
		s.volumes = append(s.volumes, volumes...)
	}
	return nil
}

// contexts reads the kubeconfig files that kubectl reads.
func contexts() ([]string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	files := filepath.SplitList(os.Getenv("KUBECONFIG"))
	if len(files) == 0 {
		files = []string{filepath.Join(home, ".kube", "config")}
	}
	type named []struct{ Name string }
	var all []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var config struct{ Contexts, Clusters, Users named }
		if err == nil {
			err = yaml.Unmarshal(data, &config)
		}
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig: %w", err)
		}
		for kind, list := range map[string]named{"context": config.Contexts, "cluster": config.Clusters, "user": config.Users} {
			for _, one := range list {
				all = append(all, kind+" "+one.Name)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// files lists what is below ~/.kube except kubectl's cache, and what the
// commands of the suite have left in their folder for temporary files.
func (s *subject) files() ([]string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, dir := range []string{filepath.Join(home, ".kube"), s.tmp()} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // removed while the folder was read, or never there
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "cache":
				return fs.SkipDir
			case path != dir:
				all = append(all, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// processes lists those whose environment names the commands' folder for
// temporary files: the commands themselves and all that they started.
func (s *subject) processes() ([]string, error) {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, path := range environs {
		environ, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended, or belongs to somebody else
		}
		if !slices.Contains(strings.Split(string(environ), "\x00"), "TMPDIR="+s.tmp()) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil {
			found = append(found, strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
	}
	return found, nil
}
