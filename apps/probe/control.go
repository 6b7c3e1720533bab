package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// controlBound is how long an answer to an order may take: a call that is under
// way is waited for, and a full record is long.
const controlBound = 2 * time.Minute

// questionLimit is the most that a question may have, in bytes.
const questionLimit = 64 << 10

// serveControl takes orders from the start on: why there is no identity yet is
// asked for here.
func serveControl(ctx context.Context, address string, handler http.Handler, log *slog.Logger) error {
	listener, err := process.Listen(ctx, address, log)
	if err != nil {
		return fmt.Errorf("open the control port: %w", err)
	}
	log.InfoContext(ctx, "serving", "what", "control", "listen", listener.Addr().String())
	return process.HTTP(listener, handler, controlBound, log).Run(ctx)
}

// control answers whoever may use the API of the cluster.
type control struct {
	own *identity.Source
	api workloadAPI
}

func newControl(own *identity.Source, api workloadAPI, streams http.Handler) http.Handler {
	c := control{own: own, api: api}
	mux := http.NewServeMux()
	mux.Handle("/streams/", streams)
	mux.HandleFunc("GET /holding", c.holding)
	mux.HandleFunc("POST /token", c.token)
	mux.HandleFunc("POST /validate", c.validate)
	mux.HandleFunc("POST /get", c.get)
	return mux
}

// holding answers a traffic.Holding. Where JWT bundles cannot be asked for
// although there is an SVID, it answers none of it: no bundles would look like
// none held.
func (c control) holding(w http.ResponseWriter, r *http.Request) {
	held := traffic.Holding{Bundles: c.bundles(), JWTBundles: map[string][]string{}}
	svid, err := c.own.GetX509SVID()
	if err != nil {
		held.Problem = err.Error()
		service.JSON(w, http.StatusOK, held)
		return
	}
	held.Self = partyOf(svid, c.own)
	if held.JWTBundles, err = c.api.bundles(r.Context()); err != nil {
		c.refuse(w, http.StatusServiceUnavailable, fmt.Errorf("fetch JWT bundles: %w", err))
		return
	}
	service.JSON(w, http.StatusOK, held)
}

func (c control) bundles() map[string][]string {
	held := map[string][]string{}
	for _, td := range c.own.TrustDomains() {
		bundle, err := c.own.GetX509BundleForTrustDomain(td)
		if err != nil {
			continue // it went since the line above
		}
		held[td.Name()] = []string{}
		for _, root := range bundle.X509Authorities() {
			held[td.Name()] = append(held[td.Name()], hex.EncodeToString(root.SubjectKeyId))
		}
		slices.Sort(held[td.Name()])
	}
	return held
}

// partyOf returns svid as somebody who holds the same bundles sees it.
func partyOf(svid *x509svid.SVID, holder identity.Holder) *traffic.Party {
	own := identity.DocumentOf(svid)
	party := &traffic.Party{ID: own.ID.String(), Serial: own.Serial, NotAfter: own.NotAfter}
	if _, chains, err := x509svid.Verify(svid.Certificates, holder); err == nil { // or it has no authority, as it says
		party.Authority = hex.EncodeToString(chains[0][len(chains[0])-1].SubjectKeyId)
	}
	return party
}

func (c control) token(w http.ResponseWriter, r *http.Request) {
	question, ok := c.question(w, r)
	if !ok {
		return
	}
	own, err := c.own.GetX509SVID()
	if err == nil {
		question.Token, err = c.api.token(r.Context(), own.ID, question.Audience)
	}
	if err != nil {
		c.refuse(w, http.StatusServiceUnavailable, fmt.Errorf("fetch JWT-SVID: %w", err))
		return
	}
	service.JSON(w, http.StatusOK, question)
}

func (c control) validate(w http.ResponseWriter, r *http.Request) {
	question, ok := c.question(w, r)
	if !ok {
		return
	}
	id, err := c.api.validate(r.Context(), question.Audience, question.Token)
	var invalid *traffic.InvalidError
	switch {
	case errors.As(err, &invalid):
		service.JSON(w, http.StatusOK, traffic.Validated{Invalid: invalid.Reason})
	case err != nil:
		c.refuse(w, http.StatusServiceUnavailable, fmt.Errorf("validate JWT-SVID: %w", err))
	default:
		service.JSON(w, http.StatusOK, traffic.Validated{ID: id.String()})
	}
}

// getBound is how long a request of a check may take.
const getBound = 5 * time.Second

// get makes one request with the probe's SVID. It follows no redirect, and takes any
// status for an answer.
func (c control) get(w http.ResponseWriter, r *http.Request) {
	var get traffic.Get
	err := decode(w, r, &get)
	var server spiffeid.ID
	if err == nil {
		server, err = spiffeid.FromString(get.Server)
	}
	var request *http.Request
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), getBound)
		defer cancel()
		request, err = http.NewRequestWithContext(ctx, http.MethodGet, get.URL, nil)
	}
	if err == nil && request.URL.Scheme != "https" {
		err = fmt.Errorf("the URL is %q: want one of https", get.URL)
	}
	if err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("read question: %w", err))
		return
	}
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: tlsconfig.MTLSClientConfig(c.own, c.own, tlsconfig.AuthorizeID(server)), ForceAttemptHTTP2: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		service.JSON(w, http.StatusOK, traffic.Got{Problem: err.Error()})
		return
	}
	service.JSON(w, http.StatusOK, traffic.Got{Status: response.StatusCode})
	_ = response.Body.Close() // only the status is wanted
}

// question reads a question about a JWT-SVID; it answers itself when it is none.
func (c control) question(w http.ResponseWriter, r *http.Request) (question traffic.JWT, ok bool) {
	err := decode(w, r, &question)
	if err == nil && question.Audience == "" {
		err = errors.New("audience is empty")
	}
	if err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("read question: %w", err))
		return question, false
	}
	return question, true
}

func decode(w http.ResponseWriter, r *http.Request, question any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, questionLimit))
	decoder.DisallowUnknownFields()
	return decoder.Decode(question)
}

func (c control) refuse(w http.ResponseWriter, status int, err error) {
	service.Refusal{Status: status, Reason: err.Error()}.Write(w, c.own)
}
