package live

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

const (
	market, broker = "cluster1.com", "cluster2.com"
	oldKey, newKey = "0123456789abcdef", "fedcba9876543210"
	jwtKey         = "jwtkeyid"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func authorities(ids ...string) (all []federation.Authority) {
	for i, id := range ids {
		all = append(all, federation.Authority{Kind: federation.X509, ID: id, NotBefore: noon.Add(time.Duration(i) * time.Hour), NotAfter: noon.Add(24 * time.Hour)})
	}
	return append(all, federation.Authority{Kind: federation.JWT, ID: jwtKey})
}

// quotes is the first look at a lab of two trust domains that trust each other.
func quotes() Frame {
	pair := func(truster, trusted string) watch.Pair {
		return watch.Pair{
			Truster: truster, Trusted: trusted, Profile: "https_spiffe", Mode: "crd", State: federation.InSync, Held: authorities(oldKey),
			PollSeconds: 15, LastFetch: noon.Add(-5 * time.Second), NextPollBy: noon.Add(10 * time.Second),
		}
	}
	return Frame{Look: watch.Look{
		Lab: "quotes", At: noon,
		Domains: []watch.Domain{
			{Name: market, Own: authorities(oldKey), Served: authorities(oldKey), EndpointUp: true},
			{Name: broker, Own: authorities("b"), Served: authorities("b"), EndpointUp: true},
		},
		Pairs: []watch.Pair{pair(market, broker), pair(broker, market)},
		Identities: []watch.Identity{
			{What: watch.Agent, Name: "market", TrustDomain: market, Authority: oldKey},
			{What: watch.Workload, Name: "stock-quotes", TrustDomain: market, Authority: oldKey},
			{What: watch.Workload, Name: "nothing-known-of-its-authority", TrustDomain: market, Authority: "other"},
		},
		Calls: []watch.Call{{From: "broker-webapp", To: "stock-quotes", Outcome: watch.Answered}},
	}}
}

// rotation is a recording of an X.509 authority of cluster1.com that comes through its five
// places, a second for each, while the one before leaves three of them.
func rotation() []Frame {
	var all []Frame
	for i, change := range []func(*Frame){
		func(*Frame) {},
		func(f *Frame) {
			f.Domains[0].Own = authorities(oldKey, newKey)
			f.Pairs[1].State = federation.Behind
			f.Doing = []string{"step: prepare the next authority"}
		},
		func(f *Frame) { f.Domains[0].Served = authorities(oldKey, newKey) },
		func(f *Frame) { f.Pairs[1].Held, f.Pairs[1].State = authorities(oldKey, newKey), federation.InSync },
		func(f *Frame) { f.Identities[0].Authority = newKey },
		func(f *Frame) { f.Identities[1].Authority = newKey },
		func(f *Frame) { f.Domains[0].Own = authorities(newKey) },
	} {
		f := quotes()
		if i > 0 {
			before := all[i-1]
			f = before
			f.Domains, f.Pairs, f.Identities = slices.Clone(before.Domains), slices.Clone(before.Pairs), slices.Clone(before.Identities)
			f.Doing = nil
		}
		f.At = noon.Add(time.Duration(i) * time.Second)
		change(&f)
		all = append(all, f)
	}
	return all
}

// listen opens the stream of a page, and returns what reads its next event.
func listen(t *testing.T, url string) func() event {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("the stream is %q", kind)
	}
	lines := bufio.NewReader(response.Body)
	return func() (e event) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
				return e
			}
		}
	}
}

func serve(t *testing.T, p *Page) string {
	t.Helper()
	server := httptest.NewServer(p.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestEventsTellWhatHasChanged(t *testing.T) {
	p := New()
	next := listen(t, serve(t, p)+"/events?truster="+broker+"&trusted="+market)
	if e := next(); e.Shape != "" || e.At != 0 || len(e.Cells) != 0 {
		t.Errorf("before the first look the page is told %+v", e)
	}
	frames := rotation()
	p.Show(frames[0])
	first := next()
	if first.Shape == "" || first.Time != clock(noon) || len(first.Cells) != 4 || first.Summary != "2 relationships: 2 in sync" || !first.Moves || len(first.News) != 0 {
		t.Errorf("the first look is told as %+v", first)
	}
	want := cell{
		Class: "in-sync", Sign: "✓", Word: "in sync", Last: noon.Add(-5 * time.Second).UnixMilli(), Next: noon.Add(10 * time.Second).UnixMilli(), Poll: 15_000,
		Says: "cluster2.com trusts cluster1.com: in sync. https_spiffe, mode crd; a poll every 15s; last fetch seen at " + clock(noon.Add(-5*time.Second)),
	}
	if got := first.Cells[2]; got != want {
		t.Errorf("the cell is %+v\nwant %+v", got, want)
	}
	if self := first.Cells[0]; self.Class != "self" || self.Sign != "" {
		t.Errorf("a trust domain and itself are %+v", self)
	}

	p.Show(frames[1])
	second := next()
	if len(second.Cells) != 1 || second.Cells[2].Class != "behind" || second.Shape != first.Shape || !slices.Equal(second.Doing, frames[1].Doing) {
		t.Errorf("the second look is told as %+v, want one cell that is behind", second)
	}
	wantNews := []news{
		{1, clock(frames[1].At), "cluster2.com trusts cluster1.com: behind, was in sync"},
		{2, clock(frames[1].At), "authority fedcba98 of cluster1.com: 1. it is in the bundle of its own server"},
	}
	if !slices.Equal(second.News, wantNews) {
		t.Errorf("the news are %+v, want %+v", second.News, wantNews)
	}
	if !strings.Contains(second.Lanes, `data-authority="`+newKey+`"`) || !strings.Contains(second.Circle, `class="arc behind"`) || !strings.Contains(second.Calls, "broker-webapp → stock-quotes") {
		t.Errorf("lanes, circle and calls are %s %s %s", second.Lanes, second.Circle, second.Calls)
	}

	p.Show(Frame{Look: watch.Look{At: noon.Add(time.Minute)}, Problem: "Docker does not answer"})
	if e := next(); e.Problem != "Docker does not answer" || e.Summary != second.Summary || e.Time != second.Time {
		t.Errorf("a look without success is told as %+v", e)
	}
}

func TestTheTableHasEachServer(t *testing.T) {
	f := quotes()
	f.Domains = append(f.Domains, watch.Domain{Name: market + "@branch"})
	f.Pairs = append(f.Pairs, watch.Pair{Truster: market + "@branch", Trusted: broker, State: "hanging"}, watch.Pair{Truster: "x.test", Trusted: "y.test", State: "new in a later fedlab"})
	m := matrixOf(f.Look)
	if want := []string{market, broker, market + "@branch", "x.test"}; !slices.Equal(m.Rows, want) {
		t.Errorf("rows are %q, want %q", m.Rows, want)
	}
	if want := []string{market, broker, "y.test"}; !slices.Equal(m.Columns, want) {
		t.Errorf("columns are %q, want %q", m.Columns, want)
	}
	var got []string
	for i, c := range m.cells(f.Look) {
		got = append(got, m.row(i)+">"+m.column(i)+" "+c.Class+" "+c.Word)
	}
	if want := []string{
		"cluster1.com>cluster1.com self itself", "cluster1.com>cluster2.com in-sync in sync", "cluster1.com>y.test none not trusted",
		"cluster2.com>cluster1.com in-sync in sync", "cluster2.com>cluster2.com self itself", "cluster2.com>y.test none not trusted",
		"cluster1.com@branch>cluster1.com self itself", "cluster1.com@branch>cluster2.com hanging hanging", "cluster1.com@branch>y.test none not trusted",
		"x.test>cluster1.com none not trusted", "x.test>cluster2.com none not trusted", "x.test>y.test unknown new in a later fedlab",
	}; !slices.Equal(got, want) {
		t.Errorf("cells are %q, want %q", got, want)
	}
	if m.Shape == matrixOf(quotes().Look).Shape {
		t.Error("another table has the same shape")
	}
}

// TestKeysTravel: where an authority is, since when, and where it was.
func TestKeysTravel(t *testing.T) {
	var k keys
	var moved []string
	frames := rotation()
	for _, f := range frames {
		moved = append(moved, k.see(f.Look)...)
	}
	const of = "authority fedcba98 of cluster1.com: "
	if want := []string{
		of + "1. it is in the bundle of its own server", of + "2. its bundle endpoint serves it", of + "3. cluster2.com holds it",
		of + "4. an agent has an SVID that it signed", of + "5. a workload has an SVID that it signed",
	}; !slices.Equal(moved, want) {
		t.Errorf("moved: %q, want %q", moved, want)
	}
	last := frames[len(frames)-1].Look
	var got []string
	for _, l := range k.lanes(last, broker, market).Lanes {
		for _, s := range l.Stops {
			got = append(got, fmt.Sprintf("%.4s %t %t %s", l.ID, s.There, s.Left, s.Text))
		}
	}
	at := func(second int) string { return clock(noon.Add(time.Duration(second) * time.Second)) }
	if want := []string{
		"0123 false true left at " + at(6), "0123 true false ", "0123 true false ", "0123 false true left at " + at(4), "0123 false true left at " + at(5),
		"fedc true false since " + at(1), "fedc true false after 1 s", "fedc true false after 2 s", "fedc true false 1 SVID, after 3 s", "fedc true false 1 SVID, after 4 s",
		"jwtk true false ", "jwtk true false ", "jwtk true false ", "jwtk false false ", "jwtk false false ",
	}; !slices.Equal(got, want) {
		t.Errorf("stops are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// What is nowhere any more is forgotten.
	gone := frames[len(frames)-1]
	gone.Domains, gone.Pairs = slices.Clone(gone.Domains), slices.Clone(gone.Pairs)
	gone.Domains[0].Served, gone.Pairs[1].Held = authorities(newKey), authorities(newKey)
	k.see(gone.Look)
	if lanes := k.lanes(gone.Look, broker, market).Lanes; len(lanes) != 2 || lanes[0].ID != newKey {
		t.Errorf("lanes are %+v", lanes)
	}
}

func TestARecordingIsReadAsItWasWritten(t *testing.T) {
	frames := rotation()
	frames = append(frames, Frame{Look: watch.Look{At: noon.Add(time.Hour)}, Problem: "no answer"})
	path := filepath.Join(t.TempDir(), "rotation.jsonl")
	var text strings.Builder
	record := Record(&text)
	for _, f := range frames {
		if err := record(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, frames) {
		t.Errorf("read %+v, %v, want %+v", got, err, frames)
	}
	if lines := strings.Count(text.String(), "\n"); lines != len(frames) {
		t.Errorf("the recording has %d lines, want %d", lines, len(frames))
	}

	line, _, _ := strings.Cut(text.String(), "\n")
	_, later, _ := strings.Cut(text.String(), "\n")
	for recording, want := range map[string]string{
		"":                 "it has no frame",
		line[:len(line)/2]: "frame 1 ends before it is whole: the file was cut off, or is larger than 512 MiB",
		"{}":               `frame 1 is a "" of "", want a FederationFrame of fedlab.dev/v1alpha1, as 'fedlab ui --record' writes it`,
		line + "\nx":       "frame 2: invalid character 'x' looking for beginning of value",
		later + line:       "frame 8: at is 2026-03-14 12:00:00 +0000 UTC, before the frame that comes before it",
		strings.ReplaceAll(line, `"at":"2026-03-14T12:00:00Z",`, ""): "frame 1 has no time in the field at",
	} {
		if _, err := read(strings.NewReader(recording)); err == nil || err.Error() != want {
			t.Errorf("reading %.60q says %v, want %s", recording, err, want)
		}
	}
}

// TestReplay: a person goes to and fro, and what was seen until a frame is the same
// as on a page that has shown all frames before.
func TestReplay(t *testing.T) {
	p := New()
	url := serve(t, p)
	frames := rotation()
	for i := range frames { // so that nothing goes on by itself
		frames[i].At = noon.Add(time.Duration(i) * time.Hour)
	}
	next := listen(t, url+"/events?truster="+broker+"&trusted="+market)
	next() // nothing yet
	move := func(query, origin string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/replay?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Sec-Fetch-Site", origin)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	if code := move("running=false", "same-origin"); code != http.StatusNotFound {
		t.Errorf("a page without a recording answers %d", code)
	}
	go p.Play(t.Context(), frames)
	if e := next(); *e.Replay != (replay{0, len(frames), true}) || !e.Moves {
		t.Errorf("it begins with %+v", *e.Replay)
	}
	var lanes []string
	for i := range frames {
		if code := move(fmt.Sprintf("at=%d", i), "same-origin"); code != http.StatusNoContent {
			t.Fatalf("to frame %d: %d", i, code)
		}
		e := next()
		if *e.Replay != (replay{i, len(frames), false}) || e.Moves {
			t.Errorf("frame %d is told as %+v", i, *e.Replay)
		}
		lanes = append(lanes, e.Lanes)
	}
	for _, i := range []int{2, 5, 0, 6} {
		move(fmt.Sprintf("at=%d", i), "same-origin")
		if e := next(); e.Lanes != lanes[i] {
			t.Errorf("again at frame %d, the keys are\n%s\nwant\n%s", i, e.Lanes, lanes[i])
		}
	}
	if code := move("at=1000&running=true", "same-origin"); code != http.StatusNoContent {
		t.Errorf("past the end: %d", code)
	}
	if e := next(); *e.Replay != (replay{len(frames) - 1, len(frames), false}) {
		t.Errorf("past the end is %+v", *e.Replay)
	}
	for query, want := range map[string]int{"at=x": http.StatusBadRequest, "at=-1": http.StatusBadRequest} {
		if code := move(query, "same-origin"); code != want {
			t.Errorf("%s: %d, want %d", query, code, want)
		}
	}
	if code := move("at=0", "cross-site"); code != http.StatusForbidden {
		t.Errorf("another page may move the replay: %d", code)
	}
}

// TestThePageIsForThisMachine: for no other host, and with nothing from elsewhere.
func TestThePageIsForThisMachine(t *testing.T) {
	p := New()
	p.Show(quotes())
	ask := func(host, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Host = host
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		return w
	}
	for _, path := range []string{"/", "/events", "/assets/live.js"} {
		if w := ask("evil.example", path); w.Code != http.StatusMisdirectedRequest || strings.Contains(w.Body.String(), market) {
			t.Errorf("%s for another host: %d %s", path, w.Code, w.Body)
		}
	}
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/assets/live.js": "text/javascript; charset=utf-8", "/assets/live.css": "text/css; charset=utf-8",
		"/assets/look.css": "text/css; charset=utf-8", "/assets/icon.svg": "image/svg+xml",
	} {
		w := ask("localhost:8090", path)
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != kind {
			t.Errorf("%s: %d %s, want %s", path, w.Code, got, kind)
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'self';") {
			t.Errorf("%s has the policy %q", path, policy)
		}
	}
	if w := ask("localhost", "/replay"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET /replay: %d", w.Code)
	}
}

// TestWhatARecordingSaysIsNotObeyed: names in a look may be anybody's.
func TestWhatARecordingSaysIsNotObeyed(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	f := quotes()
	f.Lab, f.Domains[0].Name, f.Pairs[1].Trusted, f.Pairs[1].Problem = evil, evil, evil, evil
	f.Domains[0].Own[0].ID, f.Calls[0].From, f.Calls[0].Outcome = evil, evil, evil
	p := New()
	p.Show(f)
	w := httptest.NewRecorder()
	p.document(w, nil)
	e, err := p.event(broker, evil, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"page": string(all), "lanes": e.Lanes, "circle": e.Circle, "calls": e.Calls} {
		if strings.Contains(text, "<script>alert") || !strings.Contains(text, "&lt;scrip") {
			t.Errorf("the %s has what a recording says as it is: %s", what, text)
		}
	}
}
