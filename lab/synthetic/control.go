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

// x509Answer is what POST /x509-svids answers.
type x509Answer struct {
	Certificates [][]byte `json:"certificates"`
}

// jwtAnswer is what POST /jwt-svids answers.
type jwtAnswer struct {
	Token string `json:"token"`
}

// refusal is what is answered where something is wrong, in the form in which the
// demo programs refuse.
type refusal struct {
	Kind   string `json:"error"`
	Reason string `json:"reason"`
}

// Control serves the domain's methods to who has the token; Client calls them.
func (d *Domain) Control(token string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("PUT /script", Command(func(_ *http.Request, script Script) (any, error) { return nil, d.Play(script) }))
	mux.Handle("GET /requests", query(func() (any, error) { return d.Requests(), nil }))
	mux.Handle("GET /bundle", query(func() (any, error) {
		document, err := d.Bundle().Marshal()
		return bundleAnswer{TrustDomain: d.td, Bundle: document}, err
	}))
	for path, do := range map[string]func() (Authorities, error){"/rotate": d.Rotate, "/prepare": d.Prepare, "/activate": d.Activate} {
		mux.Handle("POST "+path, query(func() (any, error) { return do() }))
	}
	mux.HandleFunc("DELETE /authorities/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, d.Drop(r.PathValue("id")))
	})
	mux.Handle("POST /x509-svids", Command(func(_ *http.Request, request X509Request) (any, error) {
		certificates, err := d.MintX509(request)
		return x509Answer{certificates}, err
	}))
	mux.Handle("POST /jwt-svids", Command(func(_ *http.Request, request JWTRequest) (any, error) {
		token, err := d.MintJWT(request)
		return jwtAnswer{token}, err
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
			refuse(w, http.StatusUnauthorized, "this is for who has the token: want it in the header Authorization, as Bearer")
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
