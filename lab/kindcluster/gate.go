package kindcluster

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// networkVariable is where kind reads the name of its Docker network from, at
// some time during a create.
const networkVariable = "KIND_EXPERIMENTAL_DOCKER_NETWORK"

// networkGate keeps one network's name in the environment while clusters on it
// are being made, and makes those on other networks wait. The zero value is
// ready.
type networkGate struct {
	mu      sync.Mutex
	holders int
	name    string
	// restore puts the environment back.
	restore func()
	// free is closed when the last holder lets go.
	free chan struct{}
}

// hold returns once name is in the environment. It stays there until each
// holder has called its release.
func (g *networkGate) hold(ctx context.Context, name string) (release func(), err error) {
	for {
		entered, free, err := g.enter(name)
		if entered || err != nil {
			return g.leave, err
		}
		select {
		case <-free:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for clusters on another network to be made: %w", context.Cause(ctx))
		}
	}
}

func (g *networkGate) enter(name string) (entered bool, free <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holders > 0 && g.name != name {
		return false, g.free, nil
	}
	if g.holders == 0 {
		if g.restore, err = setenv(networkVariable, name); err != nil {
			return false, nil, err
		}
		g.name, g.free = name, make(chan struct{})
	}
	g.holders++
	return true, nil, nil
}

func (g *networkGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holders--
	if g.holders == 0 {
		g.restore()
		close(g.free)
	}
}

// setenv sets a variable and returns what puts it back, which cannot fail: what
// is put back has stood in the environment before.
func setenv(key, value string) (restore func(), err error) {
	before, existed := os.LookupEnv(key)
	if err := os.Setenv(key, value); err != nil {
		return nil, fmt.Errorf("set %s: %w", key, err)
	}
	if existed {
		return func() { _ = os.Setenv(key, before) }, nil
	}
	return func() { _ = os.Unsetenv(key) }, nil
}
