// Package svid prints what the Workload API gives to a program: its X509-SVIDs,
// and JWT-SVIDs for an audience; and what comes of calls that are made with them. A
// person asks for that inside of the container in which the program runs, so that the
// agent answers as it answers the program.
//
// It refuses to print a private key.
package svid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// Command is the first argument that makes a program print what it has.
const Command = "svid"

// bound is how long the Workload API may take to answer.
const bound = 10 * time.Second

// Held is what is printed, as JSON.
type Held struct {
	// X509 has each X509-SVID, the default one first.
	X509 []X509SVID `json:"x509"`
	// Bundles names the trust domains whose bundles came with them.
	Bundles []string `json:"bundles"`
	// JWT has a token for each identity, where an audience is named.
	JWT []string `json:"jwt,omitempty"`
	// Calls has one for each server that is to be called. Without an identity they are all
	// that there is.
	Calls []Call `json:"calls,omitempty"`
}

// X509SVID is one of them.
type X509SVID struct {
	Hint string `json:"hint,omitempty"`
	// Chain has the certificates in DER, the leaf first.
	Chain [][]byte `json:"chain"`
}

// Or returns run, and what prints instead where the first argument is Command.
func Or(run process.Run) process.Run {
	return func(ctx context.Context, args []string, env func(string) string, stderr io.Writer) error {
		if len(args) > 0 && args[0] == Command {
			return Print(ctx, args[1:], env, os.Stdout, stderr)
		}
		return run(ctx, args, env, stderr)
	}
}

// Print prints what the Workload API gives, once.
func Print(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	var socket, audience string
	var to targets
	flags := process.Flags(Command, stderr)
	flags.StringVar(&socket, "socket", identity.DefaultSocket, "address of the Workload API")
	flags.StringVar(&audience, "audience", "", "also fetch JWT-SVIDs for this audience")
	flags.Var(&to, "call", "also call this server, SPIFFE-ID@HOST:PORT; may be given several times")
	if err := process.Parse(flags, "SVID", map[string]string{"socket": identity.SocketVariable}, args, env); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("the Workload API has not answered within %s", bound))
	defer cancel()
	held, err := fetch(ctx, socket, audience, to)
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	if err != nil && len(held.Calls) == 0 {
		return fmt.Errorf("ask the Workload API at %s: %w", socket, err)
	}
	return json.NewEncoder(stdout).Encode(held)
}

func fetch(ctx context.Context, socket, audience string, to []Target) (Held, error) {
	held := Held{Bundles: []string{}}
	at := workloadapi.WithAddr(socket)
	all, err := workloadapi.FetchX509Context(ctx, at)
	if err != nil {
		for _, t := range to {
			held.Calls = append(held.Calls, Call{Target: t, Outcome: string(diagnosis.NoIdentity), Detail: err.Error()})
		}
		return held, err
	}
	held.Calls = callAll(ctx, to, fixed{identity.Meant(all), all.Bundles})
	for _, s := range all.SVIDs {
		one := X509SVID{Hint: s.Hint}
		for _, c := range s.Certificates {
			one.Chain = append(one.Chain, c.Raw)
		}
		held.X509 = append(held.X509, one)
	}
	for _, b := range all.Bundles.Bundles() {
		held.Bundles = append(held.Bundles, b.TrustDomain().Name())
	}
	if audience == "" {
		return held, nil
	}
	tokens, err := workloadapi.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: audience}, at)
	for _, token := range tokens {
		held.JWT = append(held.JWT, token.Marshal())
	}
	return held, err
}
