package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

func TestMain(m *testing.M) {
	imagestest.Main(m, map[string]func(context.Context, []string) error{"store": helpStore})
}

// newStore returns an empty store.
func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// writes makes an artifact of one file.
func writes(text string) Fill {
	return func(_ context.Context, dir string, _ *os.File) error {
		return os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600)
	}
}

func content(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestStoreMakesOnce(t *testing.T) {
	s := newStore(t)
	first, err := s.Make(t.Context(), "etcd", "k1", writes("first"))
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(s.Root(), "builds", "etcd-k1"); first != want {
		t.Errorf("folder %s, want %s", first, want)
	}
	again, err := s.Make(t.Context(), "etcd", "k1", writes("second"))
	if err != nil || again != first || content(t, again) != "first" {
		t.Errorf("second Make: %s with %q, error %v, want %s untouched", again, content(t, again), err, first)
	}
	if other, err := s.Make(t.Context(), "etcd", "k2", writes("other")); err != nil || content(t, other) != "other" {
		t.Errorf("another key: %q, error %v, want a folder of its own", content(t, other), err)
	}
}

func TestStoreKeepsNothingOfAFailedBuild(t *testing.T) {
	s := newStore(t)
	_, err := s.Make(t.Context(), "etcd", "k1", func(ctx context.Context, dir string, log *os.File) error {
		if err := writes("half")(ctx, dir, log); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(log, "no space left"); err != nil {
			return err
		}
		return errors.New("compile: exit status 1")
	})
	log := filepath.Join(s.Root(), "logs", "etcd-k1.log")
	if want := "make etcd (log: " + log + "): compile: exit status 1"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if data, err := os.ReadFile(log); err != nil || string(data) != "no space left\n" {
		t.Errorf("log %q, error %v, want what the build wrote", data, err)
	}
	if left, err := os.ReadDir(s.builds()); len(left) > 0 || err != nil {
		t.Errorf("store has %v, error %v, want nothing", left, err)
	}
	dir, err := s.Make(t.Context(), "etcd", "k1", func(ctx context.Context, dir string, log *os.File) error {
		if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
			t.Errorf("the next build finds %v, error %v, want an empty folder", left, err)
		}
		return writes("whole")(ctx, dir, log)
	})
	if err != nil || content(t, dir) != "whole" {
		t.Errorf("next build: %q, error %v, want it whole", content(t, dir), err)
	}
}

// helpStore starts to make an artifact, says so, and gets no further.
func helpStore(ctx context.Context, args []string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	_, err = s.Make(ctx, "etcd", "k1", func(ctx context.Context, dir string, log *os.File) error {
		if err := writes("half")(ctx, dir, log); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, "half way"); err != nil {
			return err
		}
		never := make(chan os.Signal, 1)
		signal.Notify(never, syscall.SIGUSR1)
		<-never
		return nil
	})
	return err
}

func TestStoreTakesUpAKilledBuild(t *testing.T) {
	s := newStore(t)
	half := imagestest.Helper(t, "store", s.Root())
	out, err := half.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := half.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "half way\n" {
		t.Fatalf("helper says %q, error %v", line, err)
	}

	// While it works, another one waits for it, and says so.
	var dir string
	waits, done := make(chan string, 1), make(chan error, 1)
	p := &plan.Plan{}
	if err := p.Add(plan.Step{Name: "build/etcd", Do: func(ctx context.Context) (err error) {
		dir, err = s.Make(ctx, "etcd", "k1", writes("whole"))
		return err
	}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- plan.Runner{Observe: func(e plan.Event) {
			if e.State == plan.Noted {
				waits <- e.Note
			}
		}}.Run(t.Context(), p)
	}()
	select {
	case note := <-waits:
		if note != "another process is making it: waiting" {
			t.Errorf("note %q", note)
		}
	case err := <-done:
		t.Fatalf("Make returned %s, error %v, while another process had the lock", dir, err)
	}
	if _, there, err := s.Path("etcd", "k1"); there || err != nil {
		t.Errorf("the artifact is there, error %v, though it is half made", err)
	}

	imagestest.Kill(t, half)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir); got != "whole" {
		t.Errorf("artifact %q, want it whole", got)
	}
}

func TestStoreWaitEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	unlock, err := s.Lock(t.Context(), "etcd-k1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Make(ctx, "etcd", "k1", writes("never"))
	if want := "wait for another process that makes etcd-k1: context canceled"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestStoreLetsOneMakeForAll(t *testing.T) {
	s := newStore(t)
	var fills atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			dir, err := s.Make(t.Context(), "etcd", "k1", func(ctx context.Context, dir string, log *os.File) error {
				fills.Add(1)
				return writes("whole")(ctx, dir, log)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if got := content(t, dir); got != "whole" {
				t.Errorf("artifact %q, want it whole", got)
			}
		})
	}
	all.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("%d made it, want 1", n)
	}
}

func TestStorePrune(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"old", "new", "loaded"} {
		if _, err := s.Make(t.Context(), "etcd", key, writes(strings.Repeat("x", 10))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.MarkLoaded("etcd-loaded", true); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"spire-killed.partial", "spire-working.partial"} {
		if err := os.Mkdir(filepath.Join(s.builds(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.builds(), dir, "file"), []byte("123"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := s.Lock(t.Context(), "spire-working")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}()

	for _, log := range []string{"spire-failed.log", "spire-working.log"} {
		if err := os.WriteFile(filepath.Join(s.logs(), log), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	removed, size, err := s.Prune(map[string]bool{"etcd-new": true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"etcd-loaded", "etcd-old", "spire-killed.partial"}; !slices.Equal(removed, want) || size != 23 {
		t.Errorf("removed %q of %d bytes, want %q of 23", removed, size, want)
	}
	left, err := os.ReadDir(s.builds())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 || left[0].Name() != "etcd-new" || left[1].Name() != "spire-working.partial" {
		t.Errorf("left %v, want the current artifact and what is being made", left)
	}
	logs, err := os.ReadDir(s.logs())
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 2 || logs[0].Name() != "etcd-new.log" || logs[1].Name() != "spire-working.log" {
		t.Errorf("left logs %v, want those of the current artifact and of what is being made", logs)
	}
	if loaded, err := s.WasLoaded("etcd-loaded"); loaded || err != nil {
		t.Errorf("a removed artifact is still said to be loaded, error %v", err)
	}
}

// What was loaded once and is made again later is not said to be loaded.
func TestStoreForgetsWhereAnArtifactWasFrom(t *testing.T) {
	s := newStore(t)
	if err := s.MarkLoaded("etcd-k1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(t.Context(), "etcd", "k1", writes("made")); err != nil {
		t.Fatal(err)
	}
	if loaded, err := s.WasLoaded("etcd-k1"); loaded || err != nil {
		t.Errorf("loaded %t, error %v, want it made", loaded, err)
	}
}

// A bench keeps what is on it until somebody prunes.
func TestStoreBench(t *testing.T) {
	s := newStore(t)
	for _, want := range []bool{false, true} {
		err := s.Bench(t.Context(), "program-k", func(dir string) error {
			_, err := os.Stat(filepath.Join(dir, "program"))
			if there := err == nil; there != want {
				t.Errorf("the program is there: %t, want %t", there, want)
			}
			if removed, _, err := s.Prune(nil); err != nil || len(removed) > 0 {
				t.Errorf("removed %q, error %v, want what is in use to stay", removed, err)
			}
			return os.WriteFile(filepath.Join(dir, "program"), nil, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if removed, _, err := s.Prune(nil); err != nil || !slices.Equal(removed, []string{"program-k"}) {
		t.Errorf("removed %q, error %v, want the bench", removed, err)
	}
}
