package synthetic

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// longestCommand is in bytes: a script holds bundles.
const longestCommand = 4 << 20

// bundleAnswer is what GET /bundle answers.
type bundleAnswer struct {
	TrustDomain spiffeid.TrustDomain `json:"trustDomain"`
	Bundle      json.RawMessage      `json:"bundle"`
}

// refusal is what is answered where something is wrong, in the form in which the
// demo programs refuse.
type refusal struct {
	Kind   string `json:"error"`
	Reason string `json:"reason"`
}

// Control serves what the bundle endpoint answers and was asked, and the bundle, to
// who has the token; Client asks.
func (d *Domain) Control(token string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /script", Command(func(_ *http.Request, script Script) (any, error) { return nil, d.Play(script) }))
	mux.Handle("GET /requests", query(func() (any, error) { return d.Requests(), nil }))
	mux.Handle("GET /bundle", query(func() (any, error) {
		document, err := d.Bundle().Marshal()
		return bundleAnswer{TrustDomain: d.td, Bundle: document}, err
	}))
	return Guard(token, mux)
}

// Guard lets only those requests through to next that bear the token. Without
// one it lets none through.
func Guard(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !bearer || token == "" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "this needs the token: want it in the header Authorization, as Bearer")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Command handles a request whose body is a T in JSON, with nothing in it that a
// T does not have. What do returns is answered in JSON, an error with status 400.
func Command[T any](do func(*http.Request, T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var command T
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, longestCommand))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&command)
		if err == nil && decoder.More() {
			err = errors.New("it goes on after its end")
		}
		if err != nil {
			answer(w, nil, fmt.Errorf("read command: %w", err))
			return
		}
		result, err := do(r, command)
		answer(w, result, err)
	})
}

func query(do func() (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		result, err := do()
		answer(w, result, err)
	})
}

func answer(w http.ResponseWriter, result any, err error) {
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	write(w, http.StatusOK, result)
}

func refuse(w http.ResponseWriter, status int, reason string) {
	write(w, status, refusal{Kind: strings.ToLower(http.StatusText(status)), Reason: reason})
}

func write(w http.ResponseWriter, status int, content any) {
	text, err := json.Marshal(content)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, string(text)+"\n") // who asked may have left
}
