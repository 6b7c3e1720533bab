package calls

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/feed"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// lookBound is how long a look waits for calls that are under way. One that
// hangs is shown as it was, and does not hold up the others.
const lookBound = 700 * time.Millisecond

// State is how a call stands.
type State string

// The states of a call.
const (
	Waiting  State = "waiting"  // nothing is known yet, or no longer
	Answered State = "answered" // as it should be
	Refused  State = "refused"  // as it should be
	Failed   State = "failed"
)

// View is what is known of one call. Peer, Millis, Type and Records are those
// of the last call that ended as it should.
type View struct {
	Name    string          `json:"name"`
	Caller  spiffeid.ID     `json:"caller"` // of no name while it has no identity
	Server  spiffeid.ID     `json:"server"`
	URL     string          `json:"url"`
	Profile string          `json:"profile,omitempty"`
	Expect  diagnosis.Class `json:"expect,omitempty"`
	// Token says that the caller presents a JWT-SVID in place of its X509-SVID.
	Token bool           `json:"token,omitempty"`
	State State          `json:"state"`
	Peer  *identity.Peer `json:"peer,omitempty"`
	// Millis is how long it took, connection and handshake included.
	Millis  float64 `json:"millis,omitempty"`
	Type    string  `json:"type,omitempty"`
	Records int     `json:"records,omitempty"`
	// Problem is why it failed, or why it was refused as it should be.
	Problem *diagnosis.Problem `json:"problem,omitempty"`
	// Reported says that the caller reported this call, and the watcher did
	// not see it.
	Reported bool `json:"reported,omitempty"`
}

// Report is what a program knows of its calls.
type Report struct {
	Self  *identity.Self `json:"self,omitempty"`
	Calls []View         `json:"calls"`
	Now   time.Time      `json:"now"`
	// NextInMillis is when to ask again: not before that is there news.
	NextInMillis int64 `json:"nextInMillis"`
}

// Caller is what a program is that calls others.
type Caller interface {
	identity.Own
	// Token returns a JWT-SVID that is for audience alone.
	Token(ctx context.Context, audience spiffeid.ID) (string, error)
}

// Watch makes the calls of one program.
type Watch struct {
	own   Caller
	now   func() time.Time
	calls []*call
}

// NewWatch returns a watch of targets, which calls as own.
func NewWatch(targets []Target, own Caller, now func() time.Time, log *slog.Logger) *Watch {
	w := &Watch{own: own, now: now}
	for _, target := range targets {
		c := &call{Target: target, own: own, now: now, log: log}
		c.feed = feed.New(target.Name, c.make, now, log)
		w.calls = append(w.calls, c)
	}
	return w
}

// Report tells how the calls stand, and what the servers of targets that
// report say about theirs. It takes less than a second.
func (w *Watch) Report(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, lookBound)
	defer cancel()
	states := make([]feed.State[outcome], len(w.calls))
	var looks sync.WaitGroup
	for i, c := range w.calls {
		looks.Go(func() { states[i] = c.feed.Look(ctx) })
	}
	looks.Wait()

	r := Report{Self: identity.SelfOf(w.own), Calls: []View{}, Now: w.now(), NextInMillis: 1000}
	for i, c := range w.calls {
		r.Calls = append(r.Calls, c.view(states[i], r.Self, r.Now))
		r.NextInMillis = min(r.NextInMillis, max(0, states[i].Next.Sub(r.Now).Milliseconds()))
	}
	for i, c := range w.calls {
		if c.Report {
			r.Calls = append(r.Calls, reported(states[i])...)
		}
	}
	return r
}

// ServeHTTP answers a Report.
func (w *Watch) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	service.JSON(rw, http.StatusOK, w.Report(r.Context()))
}

// call is one target and what has come of it.
type call struct {
	Target
	own  Caller
	now  func() time.Time
	log  *slog.Logger
	feed *feed.Feed[outcome]
	peer identity.Document // who answered last; only make uses it
}

// outcome is how a call ended that ended as it should.
type outcome struct {
	peer    identity.Peer
	took    time.Duration
	body    body
	refusal error
}

type body struct {
	Type    string `json:"type"`
	Records int    `json:"records"`
	Calls   []View `json:"calls"`
}

func (c *call) make(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, identity.CallBound)
	defer cancel()
	begun := c.now()
	out, err := c.ask(ctx)
	out.took = c.now().Sub(begun)
	switch {
	case err == nil && c.Expect != "":
		err = &diagnosis.NotRefusedError{Want: c.Expect}
	case err != nil && diagnosis.Classify(err) == c.Expect:
		out.refusal, err = err, nil
	}
	if err != nil {
		err = fmt.Errorf("call %s: %w", c.URL, err)
	}
	return out, err
}

func (c *call) ask(ctx context.Context) (out outcome, err error) {
	if err := identity.Check(c.own, c.now()); err != nil {
		return out, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return out, err
	}
	if c.Token {
		token, err := c.own.Token(ctx, c.Server)
		if err != nil {
			return out, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := identity.Client{Server: c.Server, Holder: c.own, Anonymous: c.Token, Log: slog.New(slog.DiscardHandler)}
	response, peer, err := client.Do(request)
	out.peer = peer
	// A handshake a second would fill the log; it is told who is new.
	if !peer.ID.IsZero() && peer.Document != c.peer {
		c.peer = peer.Document
		c.log.InfoContext(ctx, "server authenticated", "call", c.Name, "server", peer)
	}
	if err != nil {
		return out, err
	}
	return out, service.ReadJSON(response, &out.body)
}

func (c *call) view(st feed.State[outcome], self *identity.Self, now time.Time) View {
	v := View{
		Name: c.Name, Server: c.Server, URL: c.URL, Profile: c.Profile, Expect: c.Expect, Token: c.Token, State: Waiting,
		Type: st.Answer.body.Type, Records: st.Answer.body.Records,
		Millis: float64(st.Answer.took.Microseconds()) / 1000,
	}
	if self != nil {
		v.Caller = self.ID
	}
	words := diagnosis.Call{
		Caller: "the caller", Server: fmt.Sprintf("the server of %q", c.Name), ID: c.Server,
		Address: c.Address(), Bound: identity.CallBound,
	}
	if !st.Answer.peer.ID.IsZero() {
		v.Peer = &st.Answer.peer
	}
	switch {
	case st.Err != nil:
		v.State, v.Problem = Failed, diagnosis.Explain(st.Err, words, st.Since, now)
	case st.Answer.refusal != nil:
		v.State, v.Problem = Refused, diagnosis.Explain(st.Answer.refusal, words, time.Time{}, now)
	case st.Answer.took > 0:
		v.State = Answered
	}
	return v
}

// reported returns what the server of a call says about its own calls. Whatever
// it says, they are its own: the caller of each is whom TLS authenticated.
func reported(st feed.State[outcome]) []View {
	var views []View
	for _, v := range st.Answer.body.Calls {
		if v.Reported {
			continue
		}
		v.Caller, v.Reported = st.Answer.peer.ID, true
		if st.Err != nil {
			v.State, v.Problem = Waiting, nil // it was so once
		}
		views = append(views, v)
	}
	return views
}
