package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/access"
)

// TestPasswordsAreInSecretsAlone: a database's password is in no release, whose
// values Helm keeps, and stays from one up to the next; where its Secret is gone,
// the server is told that there is another one.
func TestPasswordsAreInSecretsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, enterprise(t)); err != nil {
			t.Fatal(err)
		}
		gcp := w.nodes[nodeName{"enterprise", "gcp"}]
		key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: "distributed-app", Name: "data-database-login"}
		password := func() string {
			secret := decode[struct{ Data struct{ Password []byte } }](gcp.objects[key])
			if len(secret.Data.Password) < 32 {
				t.Fatalf("the password is %q", secret.Data.Password)
			}
			return string(secret.Data.Password)
		}
		login := func() string {
			return decode[struct{ Values struct{ Login string } }](gcp.release("data-database").text).Values.Login
		}
		first, told := password(), login()
		for _, n := range w.nodes {
			for _, r := range n.releases {
				if strings.Contains(fmt.Sprint(r.text, r.Values), first) {
					t.Errorf("release %s holds the password", r.Name)
				}
			}
		}
		if err := w.up(t, d, enterprise(t)); err != nil {
			t.Fatal(err)
		}
		if password() != first || login() != told || told == "" {
			t.Errorf("a second up makes another password, told by %q and before by %q", login(), told)
		}
		delete(gcp.objects, key)
		if err := w.up(t, d, enterprise(t)); err != nil {
			t.Fatal(err)
		}
		if password() == first || login() == told {
			t.Errorf("the Secret is gone, and the server is told %q, as before", told)
		}
	})
}
