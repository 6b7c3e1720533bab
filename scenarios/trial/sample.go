package trial

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

// sampleEvery is how often the bundles are looked at for the picture of a run.
const sampleEvery = time.Second

// sample notes which authorities servers have and hold: at first, whenever that
// changes, and at the end. What cannot be asked just now is no change.
func (t *Trial) sample(ctx context.Context) {
	last := map[[2]string]Holding{} // by holder and trust domain
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		called, caller := t.Pair()
		for _, holder := range []Domain{called, caller} {
			t.sampleOf(ctx, holder, last)
		}
		select {
		case <-ctx.Done():
			// So that a lane ends when it was last looked at.
			for _, h := range last {
				t.look(h)
			}
			return
		case <-tick.C:
		}
	}
}

// sampleOf notes what a server has and holds, where the last look saw another.
func (t *Trial) sampleOf(ctx context.Context, holder Domain, last map[[2]string]Holding) {
	ctx, cancel := context.WithTimeout(ctx, 3*sampleEvery)
	defer cancel()
	called, _ := t.Pair()
	source, unknown := called.Bundle(ctx)
	held, err := holder.Server().HeldBundles(ctx)
	own, ownErr := holder.Bundle(ctx)
	if errors.Join(unknown, err, ownErr) != nil {
		return
	}
	now := map[string]Holding{}
	for key := range last {
		if key[0] == holder.String() {
			now[key[1]] = Holding{State: federation.Missing} // unless it is among them
		}
	}
	for _, b := range append(held, own) {
		h := Holding{X509: federation.X509IDs(b), JWT: federation.JWTIDs(b)}
		if b.TrustDomain() == called.Name && holder.Name != called.Name {
			h.State = federation.Compare(b, source).State
		}
		now[b.TrustDomain().Name()] = h
	}
	for _, of := range slices.Sorted(maps.Keys(now)) {
		h := now[of]
		h.Holder, h.Of, h.At = holder.String(), of, time.Now()
		key := [2]string{h.Holder, h.Of}
		before, known := last[key]
		last[key] = h
		if !known || before.State != h.State || !slices.Equal(before.X509, h.X509) || !slices.Equal(before.JWT, h.JWT) {
			t.look(h)
		}
	}
}

func (t *Trial) look(h Holding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Holdings = append(t.record.Holdings, h)
}
