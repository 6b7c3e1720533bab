package lab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// database is a PostgreSQL in a cluster.
type database struct {
	in        *topology.Cluster
	namespace string
	topology.Database
	// socketDir is where its agent's socket is, where it has TLS.
	socketDir string
}

// databaseOf is what a server keeps its entries in.
func databaseOf(s *topology.Server) database {
	return database{in: s.Place.Cluster, namespace: s.Place.Namespace, Database: topology.Database{Release: spire.DatabaseRelease, Name: spire.DatabaseName, User: spire.DatabaseUser}}
}

// databaseFor is the one that runs next to a workload.
func databaseFor(w *topology.Workload) database {
	d := database{in: w.Cluster(), namespace: w.Namespace, Database: w.Database()}
	if !d.ID.IsZero() {
		d.socketDir = spire.SocketDir(w.Member)
	}
	return d
}

// postgresValues are those of charts/postgres.
type postgresValues struct {
	Image    string       `json:"image"`
	Database string       `json:"database"`
	User     string       `json:"user"`
	Login    string       `json:"login"`
	TLS      *postgresTLS `json:"tls,omitempty"`
}

type postgresTLS struct {
	Helper    string `json:"helper"`
	SocketDir string `json:"socketDir"`
}

// database runs a PostgreSQL.
func (u *up) database(ctx context.Context, d database) error {
	in := u.in(d.in)
	volumes, err := claimed(ctx, in.Objects, access.ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: d.namespace, Name: d.Release}, d.Release+"-0")
	if err != nil {
		return err
	}
	loaded, err := u.Parts.Images.LoadDemo(ctx, d.in.Lab, d.in.Name, postgres)
	if err != nil {
		return err
	}
	login, made, err := login(ctx, in.Objects, d)
	if err != nil {
		return err
	}
	if err := volumes.bound(ctx); err != nil {
		return err
	}
	values := postgresValues{Image: u.images.Demos[postgres], Database: d.Name, User: d.User, Login: login}
	if d.socketDir != "" {
		helper, err := u.Parts.Images.LoadDemo(ctx, d.in.Lab, d.in.Name, topology.SPIFFEHelper)
		if err != nil {
			return err
		}
		loaded = loaded || helper
		values.TLS = &postgresTLS{u.images.Demos[topology.SPIFFEHelper], d.socketDir}
	}
	changed, err := in.Releases.Apply(ctx, access.Release{Name: d.Release, Namespace: d.namespace, Chart: postgres, Values: values})
	if err != nil {
		return err
	}
	if loaded || made || changed {
		plan.Did(ctx)
	}
	return nil
}

// lentKey is the Secret with the password of the database that is lent to a workload.
func lentKey(w *topology.Workload) access.ObjectKey {
	return access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: w.Namespace, Name: w.LentSecret()}
}

// lend gives a workload the password of the database that is lent to it.
func (u *up) lend(ctx context.Context, w *topology.Workload) error {
	from := w.Lender()
	password, _, err := password(ctx, u.in(from.Cluster()).Objects, databaseFor(from))
	if err != nil {
		return err
	}
	made, err := u.in(w.Cluster()).Objects.Apply(ctx, namespace(w.Namespace), secretOf(lentKey(w), password))
	if made {
		plan.Did(ctx)
	}
	return err
}

// takeBack removes the password of a database that is not lent to a workload any more.
func takeBack(ctx context.Context, objects access.Objects, w *topology.Workload) error {
	there, err := objects.Object(ctx, lentKey(w), &struct{}{})
	if err != nil || !there {
		return err
	}
	plan.Did(ctx)
	return objects.Delete(ctx, lentKey(w))
}

// secretOf is a Secret with a password.
func secretOf(key access.ObjectKey, password []byte) any {
	return map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"data":     map[string]any{"password": password},
	}
}

// password reads a database's password; empty where there is none yet.
func password(ctx context.Context, objects access.Objects, d database) ([]byte, access.ObjectKey, error) {
	key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: d.namespace, Name: d.Secret()}
	var secret struct {
		Data struct {
			Password []byte `json:"password"`
		} `json:"data"`
	}
	_, err := objects.Object(ctx, key, &secret)
	return secret.Data.Password, key, err
}

// login makes the Secret with a database's password where there is none, and
// returns what tells the password from another one. The Secret is no part of the
// release: Helm keeps what its last revisions made, and with it each password. What
// is told is no help to guess 260 random bits.
func login(ctx context.Context, objects access.Objects, d database) (tells string, made bool, err error) {
	password, key, err := password(ctx, objects, d)
	if err != nil {
		return "", false, err
	}
	if made = len(password) == 0; made {
		password = []byte(rand.Text() + rand.Text())
		_, err = objects.Apply(ctx, namespace(d.namespace), secretOf(key, password))
	}
	sum := sha256.Sum256(password)
	return hex.EncodeToString(sum[:8]), made, err
}
