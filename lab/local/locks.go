package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/lock"
)

// locks has one lock for each lab of an engine: what a lab is is kept in the
// engine, and not in anything that belongs to one user.
type locks struct{ engine *docker.Client }

func (l locks) Hold(ctx context.Context, name, command string) (func() error, error) {
	engine, err := l.engine.ID(ctx)
	if err != nil {
		return nil, err
	}
	release, err := lock.Take(lockName(engine, name), "fedlab "+command)
	if held := (*lock.HeldError)(nil); errors.As(err, &held) {
		return nil, &lab.HeldError{Lab: name, Holder: held.Holder.String()}
	}
	return release, err
}

// lockName names the lock of a lab. The ID of an engine may be longer than the
// name of a lock.
func lockName(engine, name string) string {
	sum := sha256.Sum256([]byte(engine))
	return hex.EncodeToString(sum[:8]) + "/" + name
}
