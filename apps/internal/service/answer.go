package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// answerLimit is the most that is read of an answer, in bytes.
const answerLimit = 4 << 20

// bodyLimit is the most that a request may carry, in bytes.
const bodyLimit = 1 << 20

// JSON answers v with status.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that has gone away
}

// Refusal is an answer other than the one that was asked for. A server writes
// it; ReadJSON gives it to the client as an error.
type Refusal struct {
	Status int    `json:"-"`
	Kind   string `json:"error"` // Status in words
	// Rule is the one that the request breaks, with status 401 or 403.
	Rule string `json:"rule,omitempty"`
	// Reason is why a request that breaks no rule is not answered.
	Reason string `json:"reason,omitempty"`
	Caller string `json:"caller,omitempty"` // whom the server sees
	Server string `json:"server,omitempty"` // who refuses

	challenge challenge
}

// challenge is the header WWW-Authenticate of an answer that asks for a bearer token (RFC
// 6750, section 3).
type challenge struct{ there, presented bool }

// of returns the header of a server, which is the audience that a token must have.
func (c challenge) of(server string) string {
	text := fmt.Sprintf("Bearer realm=%q", server)
	if c.presented {
		text += `, error="invalid_token"`
	}
	return text
}

func (e *Refusal) Error() string {
	text := fmt.Sprintf("answer is %d %s", e.Status, e.Kind)
	if why := e.Rule + e.Reason; why != "" {
		text += ": " + why
	}
	return text
}

// Write answers e in the name of the server that holds own.
func (e Refusal) Write(w http.ResponseWriter, own x509svid.Source) {
	e.Kind = strings.ToLower(http.StatusText(e.Status))
	if svid, err := own.GetX509SVID(); err == nil {
		e.Server = svid.ID.String()
	}
	if e.challenge.there {
		w.Header().Set("WWW-Authenticate", e.challenge.of(e.Server))
	}
	JSON(w, e.Status, e)
}

// ReadJSON reads the body of response into v if its status is 200, and
// otherwise returns a *Refusal, also when the body is not one. It closes the
// body.
func ReadJSON(response *http.Response, v any) (err error) {
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		refusal := &Refusal{}
		if json.Unmarshal(body, refusal) != nil || refusal.Kind == "" {
			refusal = &Refusal{Kind: strings.ToLower(http.StatusText(response.StatusCode))}
		}
		refusal.Status = response.StatusCode
		return refusal
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// TrustDomainOf returns the name of own's trust domain; empty before there is
// an identity.
func TrustDomainOf(own x509svid.Source) string {
	svid, err := own.GetX509SVID()
	if err != nil {
		return ""
	}
	return svid.ID.TrustDomain().Name()
}

// Health answers who serves, and 503 while check returns an error; nil checks
// nothing.
func Health(name string, own x509svid.Source, check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if check != nil {
			if err := check(r.Context()); err != nil {
				Refusal{Status: http.StatusServiceUnavailable, Reason: err.Error()}.Write(w, own)
				return
			}
		}
		JSON(w, http.StatusOK, map[string]string{"status": "healthy", "service": name, "trust_domain": TrustDomainOf(own)})
	}
}
