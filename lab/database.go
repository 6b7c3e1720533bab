package lab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// database runs a PostgreSQL in a cluster, with one database and its owner.
func (u *up) database(ctx context.Context, cluster, namespace, release, name, user string) error {
	loaded, err := u.Parts.Images.LoadDemo(ctx, u.topology.Name, cluster, postgres)
	if err != nil {
		return err
	}
	login, made, err := login(ctx, u.access(cluster).Objects, namespace, release)
	if err != nil {
		return err
	}
	changed, err := u.access(cluster).Releases.Apply(ctx, Release{
		Name: release, Namespace: namespace, Chart: postgres,
		Values: postgresValues{Image: u.images.Demos[postgres], Database: name, User: user, Login: login},
	})
	if err != nil {
		return err
	}
	if loaded || made || changed {
		plan.Did(ctx)
	}
	return nil
}

// loginSecret names the Secret with the password of a database's owner.
func loginSecret(release string) string { return release + "-login" }

// login makes the Secret with a database's password where there is none, and
// returns what tells the password from another one. The Secret is no part of the
// release: Helm keeps what its last revisions made, and with it each password. What
// is told is no help to guess 260 random bits.
func login(ctx context.Context, objects Objects, in, release string) (tells string, made bool, err error) {
	key := ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: in, Name: loginSecret(release)}
	var secret struct {
		Data struct {
			Password []byte `json:"password"`
		} `json:"data"`
	}
	if _, err := objects.Object(ctx, key, &secret); err != nil {
		return "", false, err
	}
	password := secret.Data.Password
	if made = len(password) == 0; made {
		password = []byte(rand.Text() + rand.Text())
		_, err = objects.Apply(ctx, namespace(in), map[string]any{
			"apiVersion": key.APIVersion, "kind": key.Kind,
			"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
			"data":     map[string]any{"password": password},
		})
	}
	sum := sha256.Sum256(password)
	return hex.EncodeToString(sum[:8]), made, err
}
