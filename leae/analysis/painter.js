// Paint on a picture: a canvas of the image's own pixels, over which the browser enlarges them. What is painted is sent as
// a text of zeros and ones while the pointer moves, and when it is lifted. Gradio gives `element`, `props`, `trigger` and
// `watch`.
const canvas = element.querySelector('canvas'), brush = element.querySelector('input'), size = props.size;
const context = canvas.getContext('2d'), image = new Image(), painted = new Uint8Array(size * size);
let sent = 0, mean = '#808080';
const draw = () => {
  context.drawImage(image, 0, 0);
  context.fillStyle = mean;
  painted.forEach((is, at) => is && context.fillRect(at % size, Math.floor(at / size), 1, 1));
};
const send = () => { sent = Date.now(); trigger('input', {painted: painted.join('')}); };
const clear = () => { painted.fill(0); draw(); };
const load = () => {
  image.onload = () => {
    clear();
    const pixels = context.getImageData(0, 0, size, size).data, sums = [0, 0, 0];
    pixels.forEach((value, at) => { if (at % 4 < 3) sums[at % 4] += value; });
    mean = `rgb(${sums.map((sum) => sum / size / size)})`;
  };
  image.src = props.value;
};
const paint = (event) => {
  if (event.buttons !== 1) return;
  const box = canvas.getBoundingClientRect(), scale = size / box.width, radius = size * brush.value / 200;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  painted.forEach((_, at) => {
    if (Math.hypot(at % size + .5 - x, Math.floor(at / size) + .5 - y) <= Math.max(radius, .71)) painted[at] = 1;
  });
  draw();
  if (Date.now() - sent > 150) send();
};
canvas.addEventListener('pointerdown', (event) => { canvas.setPointerCapture(event.pointerId); paint(event); });
canvas.addEventListener('pointermove', paint);
canvas.addEventListener('pointerup', send);
element.querySelector('button').addEventListener('click', () => { clear(); send(); });
watch('value', load);
load();
