package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// The types of data, of which a trust domain gets one.
const (
	aggregated = "aggregated"
	raw        = "raw"
)

// rawVariable lists the trust domains that get raw data.
const rawVariable = "RAW_CLIENT_TRUST_DOMAINS"

// pageLimit is how many raw records an answer has at most.
const pageLimit = 1000

// processed is the answer of /api/process-data.
type processed struct {
	Type      string      `json:"type"`
	Source    string      `json:"source"` // the trust domain that answers
	Client    spiffeid.ID `json:"client"`
	Timestamp int64       `json:"timestamp"` // in seconds since 1970
	Records   int         `json:"records"`   // how many orders there are
	Data      any         `json:"data"`
	// Next is the parameter "after" of a request for more raw records; none if
	// these are the last.
	Next int64 `json:"next,omitempty"`
}

func (s settings) typeFor(domain spiffeid.TrustDomain) string {
	if _, ok := s.raw[domain]; ok {
		return raw
	}
	return aggregated
}

// allow is the policy: the lists of allowed clients, and that nobody gets data
// of a type that is not for them.
func (s settings) allow(r *http.Request, caller identity.Peer) error {
	if err := s.Rules.Allow(r, caller); err != nil {
		return err
	}
	want, get := r.URL.Query().Get("type"), s.typeFor(caller.TrustDomain)
	if want != "" && want != get {
		return fmt.Errorf("trust domain %s gets %s data, not %s, by %s", caller.TrustDomain, get, want, rawVariable)
	}
	return nil
}

func processData(store store, s settings, own x509svid.Source, now func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		after, limit, err := window(r)
		if err != nil {
			service.Refusal{Status: http.StatusBadRequest, Reason: err.Error()}.Write(w, own)
			return
		}
		caller := service.CallerOf(r)
		answer := processed{
			Type: s.typeFor(caller.TrustDomain), Source: service.TrustDomainOf(own), Client: caller.ID, Timestamp: now().Unix(),
		}
		if err := answer.fill(r.Context(), store, after, limit); err != nil {
			store.Refuse(r.Context(), w, own, err)
			return
		}
		service.JSON(w, http.StatusOK, answer)
	}
}

func (p *processed) fill(ctx context.Context, store store, after int64, limit int) (err error) {
	if p.Records, err = store.count(ctx); err != nil {
		return err
	}
	if p.Type == aggregated {
		p.Data, err = store.aggregates(ctx)
		return err
	}
	orders, err := store.page(ctx, after, limit)
	if len(orders) == limit {
		p.Next = orders[limit-1].ID
	}
	p.Data = orders
	return err
}

// window reads which raw records are asked for; a hundred from the first, if
// nothing is said.
func window(r *http.Request) (after int64, limit int, err error) {
	query := r.URL.Query()
	if text := query.Get("after"); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("after is %q: want the number of a record", text)
		}
	}
	limit = 100
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > pageLimit {
			return 0, 0, fmt.Errorf("limit is %q: want 1 to %d", text, pageLimit)
		}
	}
	return after, limit, nil
}
