package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// askBound is how long the Workload API may take to answer.
const askBound = 5 * time.Second

// workloadAPI asks the Workload API at an address, again each time: what it says
// now is what counts.
type workloadAPI struct{ socket string }

// bundles returns, by trust domain, the key IDs of the JWT authorities, sorted.
func (a workloadAPI) bundles(ctx context.Context) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	set, err := workloadapi.FetchJWTBundles(ctx, workloadapi.WithAddr(a.socket))
	if err != nil {
		return nil, err
	}
	held := map[string][]string{}
	for _, bundle := range set.Bundles() {
		keys := []string{}
		for id := range bundle.JWTAuthorities() {
			keys = append(keys, id)
		}
		slices.Sort(keys)
		held[bundle.TrustDomain().Name()] = keys
	}
	return held, nil
}

// token returns a JWT-SVID of one of this workload's identities; an agent keeps one
// for each audience.
func (a workloadAPI) token(ctx context.Context, id spiffeid.ID, audience string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, Subject: id}, workloadapi.WithAddr(a.socket))
	if err != nil {
		return "", err
	}
	return svid.Marshal(), nil
}

// validate returns whose token is, or a *traffic.InvalidError when the Workload
// API refuses it. No error has the token in it.
func (a workloadAPI) validate(ctx context.Context, audience, token string) (spiffeid.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(a.socket))
	if err != nil {
		return spiffeid.ID{}, err
	}
	defer func() { _ = client.Close() }() // it was only asked
	svid, err := client.ValidateJWTSVID(ctx, token, audience)
	if err == nil {
		return svid.ID, nil
	}
	// An agent refuses with this code (SPIRE, pkg/agent/endpoints/workload); what
	// has no code is the client's own look at what the agent has accepted.
	answer, coded := status.FromError(err)
	if coded && answer.Code() != codes.InvalidArgument {
		return spiffeid.ID{}, err
	}
	reason := err.Error()
	if coded {
		reason = answer.Message()
	}
	if token != "" {
		reason = strings.ReplaceAll(reason, token, "(the token)")
	}
	return spiffeid.ID{}, &traffic.InvalidError{Reason: reason}
}
