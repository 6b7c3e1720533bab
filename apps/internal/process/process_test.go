package process_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		args    []string
		env     map[string]string
		wait    time.Duration
		socket  string
		problem string
	}{
		"defaults":                     {wait: time.Second, socket: "here"},
		"environment":                  {env: map[string]string{"DEMO_LONG_WAIT": "2s", "SOCKET": "there"}, wait: 2 * time.Second, socket: "there"},
		"a flag beats the environment": {args: []string{"-long-wait=3s"}, env: map[string]string{"DEMO_LONG_WAIT": "2s"}, wait: 3 * time.Second, socket: "here"},
		"a flag hides a bad variable":  {args: []string{"-long-wait=3s"}, env: map[string]string{"DEMO_LONG_WAIT": "x"}, wait: 3 * time.Second, socket: "here"},
		"bad flag":                     {args: []string{"-long-wait=soon"}, problem: `read flags: invalid value "soon" for flag -long-wait: parse error`},
		"bad variable":                 {env: map[string]string{"DEMO_LONG_WAIT": "soon"}, problem: `read environment: invalid value "soon" of DEMO_LONG_WAIT: parse error`},
		"unknown flag":                 {args: []string{"-wait=1s"}, problem: "read flags: flag provided but not defined: -wait"},
		"something that is not a flag": {args: []string{"soon"}, problem: `read flags: unexpected argument "soon": every setting is a flag`},
	} {
		t.Run(name, func(t *testing.T) {
			flags := flag.NewFlagSet("demo", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			wait := flags.Duration("long-wait", time.Second, "how long")
			socket := flags.String("socket", "here", "where")
			err := process.Parse(flags, "DEMO", map[string]string{"socket": "SOCKET"}, test.args, func(name string) string { return test.env[name] })
			if test.problem != "" {
				var usage *process.UsageError
				if !errors.As(err, &usage) || err.Error() != test.problem {
					t.Fatalf("error is %v\nwant usage error %s", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if *wait != test.wait || *socket != test.socket {
				t.Errorf("got %s and %q, want %s and %q", *wait, *socket, test.wait, test.socket)
			}
		})
	}
}

func TestHelpNamesEachFlagAndItsVariable(t *testing.T) {
	var help bytes.Buffer
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(&help)
	flags.String("socket", "here", "where the agent listens")
	flags.Duration("long-wait", time.Second, "how long to wait")
	err := process.Parse(flags, "DEMO", map[string]string{"socket": "SOCKET"}, []string{"-h"}, func(string) string { return "" })
	if !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("error is %v, want flag.ErrHelp", err)
	}
	want := `Usage of demo (each flag also reads the variable in brackets):
  -long-wait [DEMO_LONG_WAIT]
    	how long to wait (default "1s")
  -socket [SOCKET]
    	where the agent listens (default "here")
`
	if help.String() != want {
		t.Errorf("help is\n%s\nwant\n%s", help.String(), want)
	}
}

func TestProbes(t *testing.T) {
	var reason error
	mux := http.NewServeMux()
	process.Probes(mux, func() error { return reason })
	probe := func(path string) (int, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := probe("/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("ready: %d %q", code, body)
	}
	reason = errors.New("no identity yet")
	if code, body := probe("/readyz"); code != 503 || body != "no identity yet\n" {
		t.Errorf("not ready: %d %q", code, body)
	}
	if code, body := probe("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("alive but not ready: %d %q", code, body)
	}
}

func TestHTTPFinishesWhatItIsDoingAndStopsWhatHangs(t *testing.T) {
	for name, test := range map[string]struct{ hangs bool }{"a short answer": {false}, "one that never ends": {true}} {
		t.Run(name, func(t *testing.T) {
			listener, err := process.Listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			asked, finish := make(chan struct{}), make(chan struct{})
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				select {
				case <-finish:
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "done")
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() {
				ended <- process.HTTP(listener, handler, time.Minute, slog.New(slog.DiscardHandler)).Run(ctx)
			}()
			body := make(chan string, 1)
			go func() { body <- get(t.Context(), "http://"+listener.Addr().String()) }()
			<-asked
			stop()
			if !test.hangs {
				close(finish)
				if got := <-body; got != "done" {
					t.Errorf("the answer was cut off: %q", got)
				}
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the server did not stop")
			}
		})
	}
}

// get returns the body at url, or the error as text.
func get(ctx context.Context, url string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err.Error()
	}
	return string(body)
}

func TestTCPWaitsForWhatIsOpenAndEndsWhatHangs(t *testing.T) {
	for name, hangs := range map[string]bool{"a short conversation": false, "one that never ends": true} {
		t.Run(name, func(t *testing.T) {
			listener, err := process.Listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			open, finish := make(chan struct{}), make(chan struct{})
			server := process.TCP(listener, func(ctx context.Context, conn net.Conn) {
				close(open)
				select {
				case <-finish:
				case <-ctx.Done():
				}
				_, _ = io.WriteString(conn, "bye")
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- server.Run(ctx) }()
			var dialer net.Dialer
			conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			<-open
			stop()
			if !hangs {
				close(finish)
			}
			if text, err := io.ReadAll(conn); err != nil || string(text) != "bye" {
				t.Errorf("the connection said %q, %v", text, err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the server did not stop")
			}
		})
	}
}
