// Package calls watches the calls that a program makes to others: who answers,
// how fast, and why not. A program tells others about its calls, so that one of
// them can show who calls whom.
//
// It refuses to know what the calls are for.
package calls

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Target is a call that is made once a second while somebody watches.
type Target struct {
	// Name is unique among the targets of a program.
	Name string `json:"name"`
	// URL is https://host:port/path.
	URL string `json:"url"`
	// Server is whom the server must prove to be.
	Server spiffeid.ID `json:"server"`
	// Profile is that of the relationship by which the caller's trust domain
	// learns of the server's; it is shown and decides nothing.
	Profile string `json:"profile,omitempty"`
	// Expect is how the call is to fail; empty if it is to be answered.
	Expect diagnosis.Class `json:"expect,omitempty"`
	// Token makes the call without an X509-SVID of the caller, and with a JWT-SVID for the
	// server instead. The server still shows an X509-SVID.
	Token bool `json:"token,omitempty"`
	// Report says that the answer is a Report of the server's own calls.
	Report bool `json:"report,omitempty"`
}

// Targets is a flag that lists targets as JSON.
type Targets []Target

func (t Targets) String() string {
	if len(t) == 0 {
		return "[]"
	}
	text, err := json.Marshal([]Target(t))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Set reads a JSON array of targets. It refuses fields that do not exist.
func (t *Targets) Set(text string) error {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var targets []Target
	if err := decoder.Decode(&targets); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one JSON array")
	}
	var errs []error
	seen := map[string]bool{}
	for i, target := range targets {
		if err := target.check(); err != nil {
			errs = append(errs, fmt.Errorf("target %d (%q): %w", i+1, target.Name, err))
		}
		if seen[target.Name] {
			errs = append(errs, fmt.Errorf("target %d: the name %q is taken", i+1, target.Name))
		}
		seen[target.Name] = true
	}
	*t = targets
	return errors.Join(errs...)
}

func (t Target) check() error {
	where, err := url.Parse(t.URL)
	switch {
	case t.Name == "":
		return errors.New("name is empty")
	case err != nil:
		return err
	case where.Scheme != "https" || where.Port() == "":
		return fmt.Errorf("url is %q: want https://host:port/path", t.URL)
	case t.Expect != "" && !slices.Contains(diagnosis.Classes(), t.Expect):
		return fmt.Errorf("expect is %q: want one of %q", t.Expect, diagnosis.Classes())
	}
	_, err = identity.ParseID(t.Server.String())
	return err
}

// Address is the host:port of a target that has been checked.
func (t Target) Address() string {
	host, _, _ := strings.Cut(strings.TrimPrefix(t.URL, "https://"), "/")
	return host
}
