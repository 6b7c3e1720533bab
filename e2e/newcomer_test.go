package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/fedlab-dev/fedlab/e2e/guide"
)

// person is a user of this machine that a spec has made: in the group docker, and
// with nothing else that another user has not.
type person struct {
	name, home string
	identity   syscall.Credential
	env        []string
}

// newPerson makes the user, and removes it with all that it has when the spec
// ends. No compiler for C, no debootstrap and no sudo is in its PATH; its caches
// of Go have what those of the suite have, since nothing is fetched here.
func newPerson(ctx context.Context, name string) *person {
	GinkgoHelper()
	must := func(program string, args ...string) {
		GinkgoHelper()
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), "%s %s: %s", program, strings.Join(args, " "), out)
	}
	must("useradd", "--create-home", "--groups", "docker", "--shell", "/bin/sh", name)
	DeferCleanup(func(ctx SpecContext) {
		found, err := user.Lookup(name)
		Expect(err).NotTo(HaveOccurred())
		// With --remove, userdel also looks for a mailbox, which nobody has made.
		out, err := exec.CommandContext(ctx, "userdel", name).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(os.RemoveAll(found.HomeDir)).To(Succeed())
	}, NodeTimeout(2*time.Minute))
	found, err := user.Lookup(name)
	Expect(err).NotTo(HaveOccurred())
	number := func(text string) uint32 {
		GinkgoHelper()
		n, err := strconv.ParseUint(text, 10, 32)
		Expect(err).NotTo(HaveOccurred())
		return uint32(n)
	}
	ids, err := found.GroupIds()
	Expect(err).NotTo(HaveOccurred())
	p := &person{name: name, home: found.HomeDir, identity: syscall.Credential{Uid: number(found.Uid), Gid: number(found.Gid)}}
	for _, id := range ids {
		p.identity.Groups = append(p.identity.Groups, number(id))
	}

	settings := map[string]string{}
	for _, name := range []string{"GOROOT", "GOMODCACHE", "GOCACHE"} {
		out, err := exec.CommandContext(ctx, "go", "env", name).Output()
		Expect(err).NotTo(HaveOccurred())
		settings[name] = strings.TrimSpace(string(out))
	}
	// Without a C compiler, Go compiles some packages in another way. What the
	// suite's cache has of those is for the next run, too.
	first := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", os.DevNull, "./cmd/fedlab")
	first.Dir, first.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := first.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))

	tools := filepath.Join(p.home, "tools")
	Expect(toolsOf("/usr/bin", tools)).To(Succeed())
	Expect(os.MkdirAll(filepath.Join(p.home, "go", "pkg"), 0o755)).To(Succeed())
	Expect(p.link(filepath.Join(p.home, "go", "pkg", "mod"), settings["GOMODCACHE"])).To(Succeed())
	Expect(p.link(filepath.Join(p.home, "go-build"), settings["GOCACHE"])).To(Succeed())
	goroot := filepath.Join(p.home, "goroot")
	Expect(p.link(goroot, settings["GOROOT"])).To(Succeed())
	p.env = []string{
		"HOME=" + p.home, "USER=" + name, "LOGNAME=" + name, "NO_COLOR=1", "LANG=C.UTF-8",
		"PATH=" + filepath.Join(goroot, "bin") + ":" + tools,
		"GOCACHE=" + filepath.Join(p.home, "go-build"), "GOPROXY=off", "GOTOOLCHAIN=local",
	}
	return p
}

// toolsOf fills a folder with links to the programs of another one, without those
// with which a person could compile C or become root.
func toolsOf(programs, folder string) error {
	without := regexp.MustCompile(`gcc|^cc$|^c[89]9|^c\+\+|g\+\+|cpp|clang|^tcc$|^sudo|^su$|^pkexec$|debootstrap`)
	found, err := os.ReadDir(programs)
	if err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	for _, program := range found {
		if without.MatchString(program.Name()) {
			continue
		}
		if err := os.Symlink(filepath.Join(programs, program.Name()), filepath.Join(folder, program.Name())); err != nil {
			return err
		}
	}
	// Docker's command may lie in another folder.
	docker, err := exec.LookPath("docker")
	if err != nil {
		return err
	}
	err = os.Symlink(docker, filepath.Join(folder, "docker"))
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return err
}

// link copies a folder: the folders in it belong to the person, and the files are
// those of the original, which the person can read and not change. Where a file
// cannot have two names, it is copied.
func (p *person) link(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // a compiler of somebody has tidied up
				return nil
			}
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, below)
		switch {
		case d.IsDir():
			return errors.Join(os.Mkdir(at, 0o755), os.Chown(at, int(p.identity.Uid), int(p.identity.Gid)))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(target, at))
		case strings.HasPrefix(below, "cache"+string(filepath.Separator)) && (d.Name() == "lock" || filepath.Ext(path) == ".lock"):
			return nil // of the module cache; the person makes locks of its own
		}
		if os.Link(path, at) == nil {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		info, told := d.Info()
		if err := errors.Join(err, told); err != nil {
			return err
		}
		return os.WriteFile(at, data, info.Mode().Perm())
	})
}

// run runs a command as the person does, in a folder.
func (p *person) run(ctx context.Context, dir string, env []string, program string, args ...string) ended {
	GinkgoHelper()
	// Where the person's PATH has it.
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{program}, args...)...)
	cmd.Dir, cmd.Env = dir, append(append([]string{}, p.env...), env...)
	identity := p.identity
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &identity, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	e := ended{
		Command: program + " " + strings.Join(args, " "), Code: cmd.ProcessState.ExitCode(),
		Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(began).Round(10 * time.Millisecond),
	}
	GinkgoWriter.Printf("%s $ %s\n%s%sexit code %d after %s\n", p.name, e.Command, e.Stdout, e.Stderr, e.Code, e.Took)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	Expect(err).NotTo(HaveOccurred())
	return e
}

// unbuilt hides the node image that this machine has built until the spec ends: who
// finds one in Docker asks no registry. The lab of the suite runs on.
func unbuilt(ctx context.Context) {
	GinkgoHelper()
	const name, kept = "fedlab.local/node:", "fedlab-e2e/node:"
	tags, err := docker(ctx, "image", "ls", "--filter", "dangling=false", "--format", "{{.Tag}}", "fedlab.local/node")
	Expect(err).NotTo(HaveOccurred())
	move := func(ctx context.Context, from, to string) error {
		_, named := docker(ctx, "image", "tag", from, to)
		if named != nil {
			return named
		}
		_, unnamed := docker(ctx, "image", "rm", from)
		return unnamed
	}
	for _, tag := range tags {
		Expect(move(ctx, name+tag, kept+tag)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) error { return move(ctx, kept+tag, name+tag) }, NodeTimeout(time.Minute))
	}
}

// The README's two commands, by somebody who is not root, on a machine that has
// Docker and where registries answer. What upstreamRegistry says of its images
// could not be tried otherwise: no registry of upstream's is asked here.
var _ = Describe("An ordinary user in the group docker", Label("newcomer", "night"), func() {
	It("brings a lab up from a registry, without root and without a C compiler", func(ctx SpecContext) {
		kept, err := os.MkdirTemp(under.scratch, "registry-")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(os.RemoveAll, kept)
		registry, err := serveUpstream(ctx, under.driver.Library, kept)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(registry.Close)

		p := newPerson(ctx, fmt.Sprintf("fedlab-e2e-%d", os.Getpid()))
		checkout := filepath.Join(p.home, "fedlab")
		Expect(guide.Copy(checkout, root)).To(Succeed())
		file, err := labFile(ctx, "quotes", "newcomer-")
		Expect(err).NotTo(HaveOccurred())
		lesson, err := existing(under.command, file)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(lesson.close)
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(filepath.Join(checkout, "lab.yaml"), text, 0o644)).To(Succeed())
		out, err := exec.CommandContext(ctx, "chown", "--recursive", p.name+":", checkout).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		do := func(ctx context.Context, program string, args ...string) ended {
			GinkgoHelper()
			return p.run(ctx, checkout, []string{"LAB=lab.yaml", "FEDLAB_MIRROR=" + registry.Host, "FEDLAB_KIND_NODE=" + registry.KindNode}, program, args...)
		}
		Expect(do(ctx, "sh", "-c", "command -v gcc cc debootstrap sudo").Stdout).To(BeEmpty(), "the person has no compiler and no way to become root")

		DeferCleanup(func(ctx SpecContext) {
			// The engine is everybody's: what the person has put there goes, too.
			node := regexp.MustCompile(`fedlab\.local/node:[0-9a-f]+`).FindString(do(ctx, "bin/fedlab", "images", "list").Stdout)
			Expect(do(ctx, "make", "lab-down")).To(endWell())
			if node != "" {
				out, err := exec.CommandContext(ctx, "docker", "image", "rm", node).CombinedOutput()
				Expect(err).NotTo(HaveOccurred(), string(out))
			}
		}, NodeTimeout(5*time.Minute))

		unbuilt(ctx)
		began := time.Now()
		Expect(do(ctx, "make", "lab-up")).To(endWell())
		measured("make lab-up from a registry takes", began)
		// The page answers, with what the other cluster says.
		broker := lesson.pair().broker
		Eventually(flowing(broker)).WithContext(ctx).WithTimeout(machine).WithPolling(poll).Should(Succeed())
		Expect(do(ctx, "bin/fedlab", "images", "list").Stdout).To(MatchRegexp(`(?m)^node image +node +\S+ +pull `), "the node image was pulled")
		Expect(do(ctx, "bin/fedlab", "scenario", "run", "auth/impersonation-across-domains")).To(endWell())
		Expect(do(ctx, "make", "lab-down")).To(endWell())
		Expect(docker(ctx, "ps", "--all", "--quiet", "--filter", "name=^/"+lesson.graph.Name+"-")).To(BeEmpty())
	}, SpecTimeout(40*time.Minute))
})
