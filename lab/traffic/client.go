package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// answerLimit is the most that is read of an answer, in bytes: a full record,
// with a long error in each call.
const answerLimit = 64 << 20

// Probe is one that makes calls, by its control API.
type Probe struct{ transport *http.Transport }

// NewProbe returns the probe that dial connects to. Each question is asked on a
// connection of its own, which is closed after it.
func NewProbe(dial func(ctx context.Context) (net.Conn, error)) *Probe {
	return &Probe{transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
}

// JWT is a JWT-SVID and whom it is for. Without a token it is the wish for one.
type JWT struct {
	Audience string `json:"audience"`
	Token    string `json:"token,omitempty"`
}

// Validated is what a probe's Workload API says of a JWT-SVID: one of both.
type Validated struct {
	ID      string `json:"id,omitempty"`
	Invalid string `json:"invalid,omitempty"` // why it is refused
}

// Get is a request that a probe makes once, with its own SVID.
type Get struct {
	URL string `json:"url"`
	// Server is the SPIFFE ID that the server must present.
	Server string `json:"server"`
}

// Got is what came of a Get: a status, or the problem on the way to it.
type Got struct {
	Status  int    `json:"status,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// InvalidError says that a Workload API was asked, and refused a JWT-SVID.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return "the JWT-SVID is refused: " + e.Reason }

// Start has the probe follow order until Stop. An order with the name of one that
// was not stopped is refused.
func (p *Probe) Start(ctx context.Context, order Order) error {
	if err := order.Check(); err != nil {
		return err
	}
	return doing(p.ask(ctx, http.MethodPut, streamPath(order.Name), order, nil), "start stream %q", order.Name)
}

// Stream returns what has been recorded so far.
func (p *Probe) Stream(ctx context.Context, name string) (s Stream, err error) {
	err = p.ask(ctx, http.MethodGet, streamPath(name), nil, &s)
	return s, doing(err, "read stream %q", name)
}

// Stop ends the calls, waits for the one under way, and returns the whole record,
// which the probe then forgets.
func (p *Probe) Stop(ctx context.Context, name string) (s Stream, err error) {
	err = p.ask(ctx, http.MethodDelete, streamPath(name), nil, &s)
	return s, doing(err, "stop stream %q", name)
}

// Holding returns what the probe has from its Workload API.
func (p *Probe) Holding(ctx context.Context) (h Holding, err error) {
	err = p.ask(ctx, http.MethodGet, "/holding", nil, &h)
	return h, doing(err, "read what the probe holds")
}

// Token returns a JWT-SVID of the probe for audience. It is a secret for as long
// as it is valid.
func (p *Probe) Token(ctx context.Context, audience string) (string, error) {
	var got JWT
	err := p.ask(ctx, http.MethodPost, "/token", JWT{Audience: audience}, &got)
	if err == nil && got.Token == "" {
		err = errors.New("the answer has no token")
	}
	return got.Token, doing(err, "fetch a JWT-SVID for %q", audience)
}

// Validate has the probe's Workload API validate a JWT-SVID, and returns whose it
// is. The error is an *InvalidError when the Workload API refused it, and another
// one when it could not be asked.
func (p *Probe) Validate(ctx context.Context, audience, token string) (string, error) {
	var got Validated
	err := p.ask(ctx, http.MethodPost, "/validate", JWT{Audience: audience, Token: token}, &got)
	switch {
	case err == nil && got.Invalid != "":
		err = &InvalidError{Reason: got.Invalid}
	case err == nil && got.ID == "":
		err = errors.New("the answer names nobody")
	}
	return got.ID, doing(err, "validate a JWT-SVID for %q", audience)
}

// Get has the probe make a request, and returns the status of the answer. The error
// says why there is none.
func (p *Probe) Get(ctx context.Context, get Get) (status int, err error) {
	var got Got
	err = p.ask(ctx, http.MethodPost, "/get", get, &got)
	if err == nil && got.Problem != "" {
		err = errors.New(got.Problem)
	}
	return got.Status, doing(err, "get %s", get.URL)
}

// doing says what was being done when there was an error.
func doing(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

func streamPath(name string) string { return "/streams/" + url.PathEscape(name) }

// ask sends question, if it is not nil, and reads the answer into answer, if that
// is not nil.
func (p *Probe) ask(ctx context.Context, method, path string, question, answer any) (err error) {
	var body io.Reader
	if question != nil {
		encoded, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(encoded)
	}
	// Whom dial leads to is the probe; the name is never looked up.
	request, err := http.NewRequestWithContext(ctx, method, "http://probe"+path, body)
	if err != nil {
		return err
	}
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("reach the probe: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the probe's answer: %w", err)
	case len(text) > answerLimit:
		return fmt.Errorf("read the probe's answer: it is longer than %d bytes", answerLimit)
	case response.StatusCode/100 != 2:
		return refusal(response.StatusCode, text)
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("read the probe's answer: %w", err)
	}
	return nil
}

// refusal is what a probe says instead of an answer.
func refusal(status int, text []byte) error {
	said := struct{ Reason string }{}
	_ = json.Unmarshal(text, &said) // what is no refusal of a probe has a status only
	kind := strings.ToLower(http.StatusText(status))
	if said.Reason == "" {
		return fmt.Errorf("the probe answers %d %s", status, kind)
	}
	return fmt.Errorf("the probe answers %d %s: %s", status, kind, said.Reason)
}
