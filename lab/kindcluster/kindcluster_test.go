package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

func TestCreate(t *testing.T) {
	t.Setenv(networkVariable, "kind-of-the-user")
	var mode fs.FileMode
	k := &fakeKind{create: func(k *fakeKind, config *v1alpha4.Cluster, kubeconfig string) error {
		info, err := os.Stat(filepath.Dir(kubeconfig))
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
		if config.Name != "quotes-market" {
			return fmt.Errorf("name %q", config.Name)
		}
		k.node = &fakeNode{}
		return os.WriteFile(kubeconfig, []byte("secret"), 0o600)
	}}
	p := k.provider()
	if err := p.Create(t.Context(), market()); err != nil {
		t.Fatal(err)
	}
	if k.network != "quotes" || os.Getenv(networkVariable) != "kind-of-the-user" {
		t.Errorf("network is %q during the create and %q after it", k.network, os.Getenv(networkVariable))
	}
	if mode != 0o700 {
		t.Errorf("folder of the kubeconfig has mode %o", mode)
	}
	if _, err := os.Stat(filepath.Dir(k.kubeconfigs[0])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder of the kubeconfig is left: %v", err)
	}
	if err, want := p.Create(t.Context(), market()), "create cluster quotes-market: node quotes-market-control-plane exists already"; message(err) != want {
		t.Errorf("second create: %q, want %q", message(err), want)
	}
	if k.node == nil {
		t.Error("second create removed the cluster")
	}
}

func TestCreateFails(t *testing.T) {
	output := strings.Repeat("noise\n", 30) + "kubeadm join --token abcdef.0123456789abcdef\nport is already allocated\n"
	tests := map[string]struct {
		failures map[string]error
		err      string
	}{
		"looking": {
			map[string]error{"ListNodes": commandFailed("no docker\n")},
			`create cluster quotes-market: command "docker run" failed with error: exit status 1: no docker`,
		},
		"making": {
			map[string]error{"Create": fmt.Errorf("prepare nodes: %w", commandFailed(output))},
			`create cluster quotes-market: prepare nodes: command "docker run" failed with error: exit status 1: …` +
				strings.Repeat("\nnoise", 18) + "\nkubeadm join --token (bootstrap token)\nport is already allocated",
		},
		"making and cleaning": {
			map[string]error{"Create": errors.New("no room"), "Delete": errors.New("still no room")},
			"create cluster quotes-market: no room\ndelete cluster quotes-market: still no room",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := &fakeKind{failures: tt.failures}
			err := k.provider().Create(t.Context(), market())
			if message(err) != tt.err {
				t.Errorf("error %q\nwant  %q", message(err), tt.err)
			}
			if k.node != nil {
				t.Error("the cluster is left")
			}
			if slices.Contains(k.calls, "Create") && k.calls[len(k.calls)-1] != "Delete" {
				t.Errorf("calls %v do not end with the clean-up", k.calls)
			}
			if _, set := os.LookupEnv(networkVariable); set {
				t.Errorf("%s is left", networkVariable)
			}
		})
	}
}

// TestCreateCancelled has kind make its node after the first removal: it has to
// be removed again, and Create may return only when kind is done.
func TestCreateCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		kindDone := false
		k := &fakeKind{create: func(k *fakeKind, _ *v1alpha4.Cluster, _ string) error {
			cancel(errors.New("user gave up"))
			<-time.After(3 * abortTick / 2)
			k.mu.Lock()
			k.node = &fakeNode{}
			k.mu.Unlock()
			<-time.After(abortTick)
			kindDone = true
			return errors.New("container is gone")
		}}
		err := k.provider().Create(ctx, market())
		if want := "create cluster quotes-market: user gave up"; message(err) != want {
			t.Errorf("error %q, want %q", message(err), want)
		}
		if !kindDone || k.node != nil {
			t.Errorf("returned when kind was done: %t, node left: %v", kindDone, k.node)
		}
	})
}

func TestCreateCancelledAndStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stuck := make(chan struct{})
		k := &fakeKind{create: func(*fakeKind, *v1alpha4.Cluster, string) error {
			cancel(errors.New("user gave up"))
			<-stuck
			return nil
		}}
		err := k.provider().Create(ctx, market())
		if want := "create cluster quotes-market: user gave up\nkind still works on cluster quotes-market after 2m0s"; message(err) != want {
			t.Errorf("error %q, want %q", message(err), want)
		}
		close(stuck)
		synctest.Wait()
	})
}

// TestCreateOnTwoNetworks has a cluster on another network wait for the first.
func TestCreateOnTwoNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := make(chan struct{}), make(chan error, 1)
		k := &fakeKind{create: func(k *fakeKind, c *v1alpha4.Cluster, _ string) error {
			if c.Name == "quotes-market" {
				<-first
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.calls = append(k.calls, c.Name+" on "+k.network)
			return nil
		}}
		p := k.provider()
		go func() {
			if err := p.Create(t.Context(), market()); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		other := market()
		other.Name, other.Network = "other-market", "other"
		go func() { second <- p.Create(t.Context(), other) }()
		synctest.Wait()

		same := market()
		same.Name = "quotes-broker"
		if err := p.Create(t.Context(), same); err != nil {
			t.Errorf("a second cluster on the same network: %v", err)
		}
		err := p.Create(ended(t.Context()), other)
		if want := "create cluster other-market: wait for clusters on another network to be made: user gave up"; message(err) != want {
			t.Errorf("error %q, want %q", message(err), want)
		}
		close(first)
		if err := <-second; err != nil {
			t.Error(err)
		}
		var made []string
		for _, call := range k.calls {
			if strings.Contains(call, " on ") {
				made = append(made, call)
			}
		}
		if want := []string{"quotes-broker on quotes", "quotes-market on quotes", "other-market on other"}; !slices.Equal(made, want) {
			t.Errorf("made %v, want %v", made, want)
		}
	})
}

// TestSweep: what a killed process left holds a key. What a process still needs,
// of whatever cluster, stays.
func TestSweep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	p := (&fakeKind{}).provider()
	left := filepath.Join(os.TempDir(), private+"1")
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "config"), []byte("key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	err := inPrivate(func(kubeconfig string) error {
		if err := os.WriteFile(kubeconfig, []byte("key"), 0o600); err != nil {
			return err
		}
		if err := p.Sweep(); err != nil {
			return err
		}
		_, err := os.Stat(kubeconfig)
		return err
	})
	if err != nil {
		t.Errorf("what a process needs: %v", err)
	}
	files, err := os.ReadDir(os.TempDir())
	if err != nil || len(files) > 0 {
		t.Errorf("left: %v, error %v", files, err)
	}
}

// TestAsking has processes that make nodes of this network and of others, and that
// do something else.
func TestAsking(t *testing.T) {
	proc := t.TempDir()
	for pid, line := range map[string]string{
		"1": "/sbin/init",
		"2": "docker run --name quotes-market-control-plane --label a=b --net fedlab-quotes image",
		"3": "/usr/bin/docker run --detach --net fedlab-quotes --name quotes-broker-control-plane image",
		"4": "docker run --name quotes-2-market-control-plane --net fedlab-quotes-2 image",
		"5": "docker logs --name x --net fedlab-quotes",
		"6": "sh -c docker run --name x --net fedlab-quotes",
		"7": "", // a zombie
		"8": "docker run --name x --net",
	} {
		dir := filepath.Join(proc, pid)
		line = strings.ReplaceAll(line, " ", "\x00") + "\x00"
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "cmdline"), []byte(line), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	p := (&fakeKind{}).provider()
	p.proc = proc
	got, err := p.Asking("fedlab-quotes")
	if want := []string{"quotes-market-control-plane", "quotes-broker-control-plane"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
}
