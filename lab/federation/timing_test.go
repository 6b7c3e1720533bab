package federation_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

const day = 24 * time.Hour

func TestPollInterval(t *testing.T) {
	tests := []struct {
		name                string
		hint, authorityLife time.Duration
		want                time.Duration
	}{
		{"a quarter of the hint", 5 * time.Minute, day, 75 * time.Second},
		{"the smallest hint that counts", time.Minute, day, 15 * time.Second},
		{"a hint below a minute counts as a minute", 10 * time.Second, day, 15 * time.Second},
		{"no hint: a fortieth of a day", 0, day, 36 * time.Minute},
		{"no hint: a fortieth of ten years", 0, 3650 * day, 91*day + 6*time.Hour},
		{"no hint, short life: as with a minute's hint", 0, 6 * time.Minute, 15 * time.Second},
		{"neither hint nor authority", 0, 0, 15 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := federation.PollInterval(test.hint, test.authorityLife); got != test.want {
				t.Errorf("PollInterval(%s, %s) = %s, want %s", test.hint, test.authorityLife, got, test.want)
			}
		})
	}
}

func TestNextPoll(t *testing.T) {
	hinted := func(hint time.Duration) *spiffebundle.Bundle {
		b := spiffebundle.New(spiffeid.RequireTrustDomainFromString("cluster1.com"))
		b.SetRefreshHint(hint)
		return b
	}
	hintless := spiffebundle.New(spiffeid.RequireTrustDomainFromString("cluster1.com"))
	hintless.SetX509Authorities([]*x509.Certificate{{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0).Add(10 * day)}, {NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0).Add(day)}})
	tests := []struct {
		name         string
		held, served *spiffebundle.Bundle
		want         time.Duration
	}{
		{"both say the same", hinted(5 * time.Minute), hinted(5 * time.Minute), 75 * time.Second},
		{"the endpoint cannot be asked", hinted(5 * time.Minute), nil, 75 * time.Second},
		{"set by hand with less", hinted(time.Minute), hinted(5 * time.Minute), 75 * time.Second},
		{"set by hand with more", hinted(5 * time.Minute), hinted(time.Minute), 75 * time.Second},
		{"set by hand without a hint", hintless, hinted(time.Minute), 36 * time.Minute},
		{"no hint, and the endpoint cannot be asked", hintless, nil, 36 * time.Minute},
		{"none is held", nil, hinted(time.Minute), time.Minute},
		{"none is held, and the endpoint says more", nil, hinted(time.Hour), 15 * time.Minute},
		{"none is held, and the endpoint cannot be asked", nil, nil, time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := federation.NextPoll(test.held, test.served); got != test.want {
				t.Errorf("NextPoll = %s, want %s", got, test.want)
			}
		})
	}
}

func TestPropagationBound(t *testing.T) {
	tests := []struct{ hint, want time.Duration }{
		{time.Minute, 18100 * time.Millisecond},
		{5 * time.Minute, 78100 * time.Millisecond},
	}
	for _, test := range tests {
		if got := federation.PropagationBound(federation.PollInterval(test.hint, day)); got != test.want {
			t.Errorf("with a hint of %s the bound is %s, want %s", test.hint, got, test.want)
		}
	}
}

// TestResyncBound has each wait that has ended as short as it may be, and the one that is under way
// as long as it may be.
func TestResyncBound(t *testing.T) {
	away, wait := time.Duration(0), time.Second
	for range 10 {
		want := min(wait*11/10, 48*1100*time.Millisecond)
		if got := federation.ResyncBound(away); (got - want).Abs() > time.Millisecond {
			t.Errorf("away for %s: %s, want %s", away, got, want)
		}
		away, wait = away+wait*9/10, wait*3/2
	}
	if got := federation.ResyncBound(time.Hour); got != 48*1100*time.Millisecond {
		t.Errorf("away for an hour: %s", got)
	}
}

func TestRegistrationBound(t *testing.T) {
	if got, want := federation.RegistrationBound(), 2100*time.Millisecond; got != want {
		t.Errorf("the bound is %s, want %s", got, want)
	}
}

func TestRotation(t *testing.T) {
	const tick = 10 * time.Second
	tests := []struct {
		name                      string
		life, prepared, activated time.Duration
	}{
		{"a lab's authority", 6 * time.Minute, 3*time.Minute + tick, 5*time.Minute + tick},
		{"SPIRE's default", day, 12*time.Hour + tick, 20*time.Hour + tick},
		{"a year: both caps hold", 365 * day, 335*day + tick, 358*day + tick},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := federation.PreparedBy(test.life); got != test.prepared {
				t.Errorf("PreparedBy(%s) = %s, want %s", test.life, got, test.prepared)
			}
			if got := federation.ActivatedBy(test.life); got != test.activated {
				t.Errorf("ActivatedBy(%s) = %s, want %s", test.life, got, test.activated)
			}
		})
	}
}

func TestRebootstrapBound(t *testing.T) {
	// A wait of 1.1 s, the delay of a minute, another wait, and the retry of 5 s.
	if got, want := federation.RebootstrapBound(0), 67200*time.Millisecond; got != want {
		t.Errorf("bound is %s, want %s", got, want)
	}
	if more := federation.RebootstrapBound(20*time.Second) - federation.RebootstrapBound(0); more != federation.ResyncBound(20*time.Second)-federation.ResyncBound(0) {
		t.Errorf("20 s away make it %s longer", more)
	}
}
