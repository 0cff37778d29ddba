use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{runtime::Handle, task::JoinSet};

use crate::system::lock;

/// A task that is started when it is first needed, and again if a runtime drops it. It ends with its owner.
#[derive(Default)]
pub(super) struct BackgroundTask {
    running: Arc<AtomicBool>,
    stopped: AtomicBool,
    /// The running task, which is aborted when this is dropped.
    task: Mutex<JoinSet<()>>,
}

impl BackgroundTask {
    /// Starts the task, unless it runs or was stopped. Outside of a runtime, nothing is started.
    #[inline]
    pub(super) fn ensure_running<F>(&self, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !self.running.load(Ordering::Relaxed) {
            self.start(task);
        }
    }

    #[cold]
    fn start<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce() -> F) {
        let Ok(runtime) = Handle::try_current() else { return };
        // Locked first, so that `stop` comes either before all of this or after it.
        let mut started = lock(&self.task);
        if self.stopped.load(Ordering::Acquire) || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let (running, task) = (Running(self.running.clone()), task());
        *started = JoinSet::new();
        let task = async move {
            // Captured in this order, and so dropped in it if the task is never polled.
            let (task, _running) = (task, running);
            task.await;
        };
        started.spawn_on(task, &runtime);
    }

    /// Ends the task. It is not started again.
    pub(super) fn stop(&self) {
        let mut started = lock(&self.task);
        self.stopped.store(true, Ordering::Release);
        started.abort_all();
    }
}

/// Marks the task as running. Dropped with the task, also by a runtime that ends.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
